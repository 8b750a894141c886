//! Large batches go to the disk once: first to their segments, then a frame refers to them.
//!
//! ```text
//! admission ─▶ ahead ─▶ [ahead] writes and syncs segments ─▶ synced ─▶ admission: LSN and frame ─▶ open group
//! ```
//!
//! Syncs of segments take longer than those of the journal, and nobody who has nothing to do with them waits for them:
//! the LSN is given when they are over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use mainstem_log::{AheadBatch, AheadWriter, AppendReference};

use crate::EngineError;
use crate::budget::Permit;
use crate::error::AppendError;
use crate::shared::Shared;
use crate::submission::{Appended, Committed};
use crate::ticket::Promise;
use crate::waiting::Key;
use crate::worker::{Progress, Steps};

/// What is written and synced in one go: enough to share the syncs, and no more than the journal's own writes can stand
/// beside them.
const BYTES_AT_ONCE: usize = 8 << 20;

/// A submission that has its offsets, and can only become durable or stop the engine.
pub(crate) struct Ahead {
    /// What is to be written, with the shard of each.
    pub(crate) batches: Vec<AheadBatch>,
    pub(crate) shards: Vec<u16>,
    pub(crate) bytes: usize,
    /// What its answer says of each append.
    pub(crate) appends: Vec<Result<Appended, AppendError>>,
    /// What it touches: others wait for it.
    pub(crate) keys: Vec<Key>,
    pub(crate) permit: Permit,
    pub(crate) promise: Promise<Committed>,
}

/// One whose bytes are durable in their segments.
pub(crate) struct Synced {
    pub(crate) ahead: Ahead,
    pub(crate) written: Vec<(AppendReference, Bytes)>,
}

/// Both queues between admission and this worker.
#[derive(Default)]
pub(crate) struct AheadQueues {
    pub(crate) ahead: VecDeque<Ahead>,
    pub(crate) synced: VecDeque<Synced>,
}

impl AheadQueues {
    pub(crate) fn fail(self, error: &EngineError) {
        let synced = self.synced.into_iter().map(|synced| synced.ahead);
        for ahead in self.ahead.into_iter().chain(synced) {
            ahead.promise.resolve(Err(error.clone()));
        }
    }

    fn take(&mut self) -> Vec<Ahead> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let fits =
            |next: &mut Ahead, bytes: usize| bytes == 0 || bytes + next.bytes <= BYTES_AT_ONCE;
        while let Some(next) = self.ahead.pop_front_if(|next| fits(next, bytes)) {
            bytes += next.bytes;
            taken.push(next);
        }
        taken
    }
}

pub(crate) struct WriteAhead {
    shared: Arc<Shared>,
    writer: AheadWriter,
}

impl WriteAhead {
    pub(crate) fn new(shared: Arc<Shared>) -> WriteAhead {
        WriteAhead {
            writer: AheadWriter::new(&shared.log),
            shared,
        }
    }

    fn run(&mut self, mut taken: Vec<Ahead>) {
        let batches: Vec<AheadBatch> = taken
            .iter_mut()
            .flat_map(|ahead| std::mem::take(&mut ahead.batches))
            .collect();
        let outcome = self.writer.write(&batches).map_err(EngineError::from);
        // What is left of the disk must be known before more is admitted.
        self.shared.look_up_free_space();
        match outcome {
            Ok(written) => {
                if !written.is_empty() {
                    tracing::debug!(case = "batches written ahead", count = written.len());
                }
                let mut written = written.into_iter();
                let synced = taken.into_iter().map(|ahead| Synced {
                    written: written.by_ref().take(ahead.shards.len()).collect(),
                    ahead,
                });
                self.shared.ahead.lock().synced.extend(synced);
                self.shared.signals.admission.notify();
            }
            Err(error) => {
                let error = self.shared.set_poison(&error);
                for ahead in taken {
                    ahead.promise.resolve(Err(error.clone()));
                }
            }
        }
    }
}

impl Steps for WriteAhead {
    fn step(&mut self) -> Progress {
        if let Some(error) = self.shared.poison() {
            self.shared.fail_everything(&error);
        }
        let taken = self.shared.ahead.lock().take();
        if !taken.is_empty() {
            self.run(taken);
            return Progress::Worked;
        }
        if self.shared.life.admission_ended.load(Ordering::Acquire) {
            Progress::Stopped
        } else {
            Progress::Idle
        }
    }
}
