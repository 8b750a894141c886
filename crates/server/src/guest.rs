//! What a handler's author needs: a project to start from, and its component.
//!
//! ```text
//! my-handler/
//!   Cargo.toml  src/lib.rs  README.md  .gitignore      the author's
//!   .mainstem/sdk/rust  .mainstem/sdk/wit              this version's SDK and contract, so that it builds anywhere
//! ```

mod project;
mod toolchain;

pub use project::new;
pub use toolchain::{GuestError, build};

use crate::failure::Failure;

impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Failure {
        Failure::new(error.code(), &error, error.hint())
    }
}
