//! Doing what may wait for a disk.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does some work that may take as long as a disk does, and lets the other connections of this thread go on meanwhile.
pub(crate) fn beside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // There is no thread that could go on.
        _ => work(),
    }
}
