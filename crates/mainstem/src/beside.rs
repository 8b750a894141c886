//! Doing what takes long on a thread of the network.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does some work that waits for a disk, or computes for long, and lets everything else of this thread go on meanwhile.
pub fn beside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // There is no thread that could go on.
        _ => work(),
    }
}
