//! The worker that waits for the disk on behalf of a checkpoint: to sync many files or to flush the store takes long, and
//! meanwhile the tail must go on to its segments, or writers run out of room.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mainstem_log::Unsynced;

use crate::EngineError;
use crate::shared::Shared;
use crate::ticket::Promise;
use crate::worker::{Progress, Steps};

/// What a checkpoint has to wait for. There is one at a time.
pub(crate) enum SyncItem {
    /// Bytes and names of segments.
    Segments {
        taken: Unsynced,
        promise: Promise<()>,
    },
    /// Everything that was written to the store.
    Store { promise: Promise<()> },
}

pub(crate) struct Sync {
    pub(crate) shared: Arc<Shared>,
}

impl Sync {
    fn run(&self, item: SyncItem) -> Result<(), EngineError> {
        let (outcome, promise) = match item {
            SyncItem::Segments { taken, promise } => {
                let outcome = self.shared.log.sync_taken(&taken);
                (outcome.map_err(EngineError::from), promise)
            }
            SyncItem::Store { promise } => {
                let outcome = self.shared.store.flush();
                (outcome.map_err(EngineError::from), promise)
            }
        };
        promise.resolve(outcome.clone());
        self.shared.signals.background.notify();
        outcome
    }
}

impl Steps for Sync {
    fn step(&mut self) -> Progress {
        // What waits when writes have stopped is not done any more: nothing may rely on it.
        let next = self.shared.sync_queue.lock().pop_front();
        match next {
            Some(item) if self.shared.poison().is_none() => {
                if let Err(error) = self.run(item) {
                    self.shared.set_poison(&error);
                }
                Progress::Worked
            }
            Some(_) => Progress::Worked,
            None if self.shared.life.background_ended.load(Ordering::Acquire) => Progress::Stopped,
            None => Progress::Idle,
        }
    }
}
