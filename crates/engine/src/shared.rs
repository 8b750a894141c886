//! What the engine's workers and its users share: queues between the workers, positions, poison.
//!
//! ```text
//! submit ─▶ queue ─▶ [admission] ─▶ open group ─▶ [journal] ─▶ applied to the log ─▶ answers
//!                                                     └─▶ apply queue ─▶ [store] ─▶ answers
//!                 │  ▲
//!                 ▼  │ large batches: see `ahead.rs`
//!               [ahead] writes and syncs segments
//!
//!                    [background] flushes segments, writes checkpoints ──▲
//!                          └─▶ sync queue ─▶ [sync] waits for the disk
//! ```

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use mainstem_journal::{BufferPool, Disk, GroupBuilder, Lsn};
use mainstem_log::{Log, LogSnapshot};
use mainstem_store::{Store, StoreOp};
use parking_lot::Mutex;

use crate::ahead::AheadQueues;
use crate::budget::{Budget, Permit, Waiter};
use crate::compaction::CompactionRequest;
use crate::mutated::Admitting;
use crate::snapshot::Snapshot;
use crate::submission::{Committed, Submission};
use crate::sync::SyncItem;
use crate::ticket::Promise;
use crate::worker::Signal;
use crate::{EngineError, EngineOptions};

/// How many groups' worth of unused buffers are kept.
const POOLED_GROUPS: usize = 8;

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: EngineOptions,
    pub(crate) journal_id: u128,
    pub(crate) log: Log,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) queue: Mutex<VecDeque<Pending>>,
    pub(crate) ahead: Mutex<AheadQueues>,
    pub(crate) open_group: Mutex<OpenGroup>,
    pub(crate) apply_queue: Mutex<VecDeque<ApplyItem>>,
    pub(crate) sync_queue: Mutex<VecDeque<SyncItem>>,
    /// Partitions that wait for compaction.
    pub(crate) compactions: Mutex<VecDeque<CompactionRequest>>,
    pub(crate) signals: Signals,
    pub(crate) positions: Positions,
    pub(crate) life: Life,
    /// Nothing, but for a mutation.
    pub(crate) admitting: Admitting,
    buffers: BufferPool,
    poison: Mutex<Option<EngineError>>,
    poisoned: AtomicBool,
}

/// One bell for each worker.
#[derive(Default)]
pub(crate) struct Signals {
    pub(crate) admission: Arc<Signal>,
    pub(crate) journal: Arc<Signal>,
    pub(crate) store: Arc<Signal>,
    pub(crate) background: Arc<Signal>,
    pub(crate) sync: Arc<Signal>,
    pub(crate) ahead: Arc<Signal>,
}

/// How far each stage has come, as LSNs; `free_bytes` and `needed_bytes` are the disk's, as last looked up.
#[derive(Default)]
pub(crate) struct Positions {
    pub(crate) admitted: AtomicU64,
    pub(crate) durable: AtomicU64,
    pub(crate) log_applied: AtomicU64,
    pub(crate) store_applied: AtomicU64,
    pub(crate) checkpoint: AtomicU64,
    /// Journal bytes written since the engine was opened.
    pub(crate) journal_bytes: AtomicU64,
    /// Bytes in segments that frames refer to, likewise.
    pub(crate) referenced_bytes: AtomicU64,
    pub(crate) free_bytes: AtomicU64,
    /// With less free than this, appends are refused.
    pub(crate) needed_bytes: AtomicU64,
    pub(crate) groups: AtomicU64,
    /// The present, in milliseconds since 1970, as last told; 0 until then.
    pub(crate) now_ms: AtomicI64,
}

/// The order in which the stages end: each drains what the one before it left.
#[derive(Default)]
pub(crate) struct Life {
    pub(crate) closing: AtomicBool,
    pub(crate) admission_ended: AtomicBool,
    pub(crate) journal_ended: AtomicBool,
    pub(crate) background_ended: AtomicBool,
}

/// A submission in the queue.
pub(crate) struct Pending {
    pub(crate) submission: Submission,
    pub(crate) permit: Permit,
    pub(crate) promise: Promise<Committed>,
}

/// A submission that waits for room: it enters the queue in its turn, not when its waiter comes to run.
pub(crate) struct Queued {
    pub(crate) shared: Weak<Shared>,
    pub(crate) submission: Submission,
    pub(crate) promise: Promise<Committed>,
}

impl Waiter for Queued {
    fn is_gone(&self) -> bool {
        self.promise.is_abandoned()
    }

    fn answer(self: Box<Self>, outcome: Result<Permit, EngineError>) {
        let Queued {
            shared,
            submission,
            promise,
        } = *self;
        match (outcome, shared.upgrade()) {
            (Ok(permit), Some(shared)) => shared.enqueue(Pending {
                submission,
                permit,
                promise,
            }),
            (Ok(_), None) => promise.resolve(Err(EngineError::Closed)),
            (Err(error), _) => promise.resolve(Err(error)),
        }
    }
}

/// Frames admitted and not yet handed to the journal, with the answers that wait for them and for
/// everything before them.
pub(crate) struct OpenGroup {
    /// Which it is since the engine was opened.
    pub(crate) number: u64,
    pub(crate) builder: GroupBuilder,
    pub(crate) answers: Vec<Answer>,
    /// The batches that its frames refer to, in order.
    pub(crate) referenced: Vec<Bytes>,
    pub(crate) append_bytes: u64,
    pub(crate) store_bytes: u64,
    pub(crate) barriers: Vec<Promise<Snapshot>>,
}

impl OpenGroup {
    fn new(number: u64, buffers: &BufferPool) -> OpenGroup {
        OpenGroup {
            number,
            builder: GroupBuilder::with_pool(buffers.clone()),
            answers: Vec::new(),
            referenced: Vec::new(),
            append_bytes: 0,
            store_bytes: 0,
            barriers: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.builder.is_empty() && self.answers.is_empty() && self.barriers.is_empty()
    }
}

/// An outcome that becomes true once its group is durable and applied.
pub(crate) struct Answer {
    pub(crate) promise: Promise<Committed>,
    pub(crate) outcome: Result<Committed, EngineError>,
    /// Whether the store must first show the frame, or what it was refused for.
    pub(crate) needs_store: bool,
}

impl Answer {
    pub(crate) fn give(self) {
        self.promise.resolve(self.outcome);
    }

    pub(crate) fn fail(self, error: &EngineError) {
        self.promise.resolve(Err(error.clone()));
    }
}

/// Work for the store's applier, in LSN order.
pub(crate) enum ApplyItem {
    /// A durable group that holds store operations.
    Group(StoreGroup),
    /// Answers that wait for everything before them.
    Answers(Vec<Answer>),
    /// A snapshot whose log part is taken: the store's part is taken here.
    Barrier {
        log: LogSnapshot,
        promise: Promise<Snapshot>,
    },
    /// A checkpoint's records, to be written at the applier's own position.
    Checkpoint {
        ops: Vec<StoreOp>,
        promise: Promise<()>,
    },
}

/// The store's part of a group.
pub(crate) struct StoreGroup {
    pub(crate) last_lsn: Lsn,
    /// What its frames do to the store, one after the other.
    pub(crate) ops: Bytes,
    pub(crate) store_bytes: u64,
    pub(crate) answers: Vec<Answer>,
}

impl ApplyItem {
    pub(crate) fn fail(self, error: &EngineError) {
        match self {
            ApplyItem::Group(group) => group
                .answers
                .into_iter()
                .for_each(|answer| answer.fail(error)),
            ApplyItem::Answers(answers) => {
                answers.into_iter().for_each(|answer| answer.fail(error))
            }
            ApplyItem::Barrier { promise, .. } => promise.resolve(Err(error.clone())),
            ApplyItem::Checkpoint { promise, .. } => promise.resolve(Err(error.clone())),
        }
    }
}

pub(crate) struct SharedParts {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) options: EngineOptions,
    pub(crate) journal_id: u128,
    pub(crate) log: Log,
    pub(crate) store: Arc<dyn Store>,
}

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Arc<Shared> {
        let signals = Signals::default();
        let budget = Budget::new(
            parts.options.memory_bytes,
            parts.options.store_backlog_bytes,
            signals.background.clone(),
        );
        let buffers = BufferPool::new(parts.options.group_bytes * POOLED_GROUPS);
        Arc::new(Shared {
            open_group: Mutex::new(OpenGroup::new(1, &buffers)),
            buffers,
            disk: parts.disk,
            dir: parts.dir,
            options: parts.options,
            journal_id: parts.journal_id,
            log: parts.log,
            store: parts.store,
            budget,
            queue: Mutex::new(VecDeque::new()),
            ahead: Mutex::default(),
            apply_queue: Mutex::new(VecDeque::new()),
            sync_queue: Mutex::new(VecDeque::new()),
            compactions: Mutex::new(VecDeque::new()),
            signals,
            positions: Positions::default(),
            life: Life::default(),
            admitting: Admitting::default(),
            poison: Mutex::new(None),
            poisoned: AtomicBool::new(false),
        })
    }

    pub(crate) fn durable_lsn(&self) -> Lsn {
        Lsn(self.positions.durable.load(Ordering::Acquire))
    }

    /// Takes what admission has gathered and leaves an empty group in its place.
    pub(crate) fn take_open_group(&self) -> OpenGroup {
        let mut open = self.open_group.lock();
        if open.is_empty() {
            return OpenGroup::new(open.number, &self.buffers);
        }
        let next = OpenGroup::new(open.number + 1, &self.buffers);
        std::mem::replace(&mut *open, next)
    }

    /// Hands a submission to admission.
    pub(crate) fn enqueue(&self, pending: Pending) {
        let mut queue = self.queue.lock();
        if self.closing() {
            // Not under the lock: the permit that goes may be what the next in line waits for.
            drop(queue);
            return pending.promise.resolve(Err(EngineError::Closed));
        }
        queue.push_back(pending);
        drop(queue);
        self.signals.admission.notify();
    }

    pub(crate) fn closing(&self) -> bool {
        self.life.closing.load(Ordering::Acquire)
    }

    /// The failure that stopped writes, if one did.
    pub(crate) fn poison(&self) -> Option<EngineError> {
        if !self.poisoned.load(Ordering::Acquire) {
            return None;
        }
        self.poison.lock().clone()
    }

    /// Stops writes for good: everybody who waits, and everybody who comes, is told why.
    pub(crate) fn set_poison(&self, cause: &EngineError) -> EngineError {
        // A store that ran into the shortage by itself, in the background, may not say so.
        let full = cause.is_full() || (cause.may_be_full() && !self.has_room_to_open());
        let error = {
            let mut poison = self.poison.lock();
            poison
                .get_or_insert_with(|| {
                    tracing::error!(%cause, "a write failed: writes stop, reads go on, until the data directory is opened again");
                    cause.poison(full)
                })
                .clone()
        };
        self.poisoned.store(true, Ordering::Release);
        self.fail_everything(&error);
        self.wake_all();
        error
    }

    pub(crate) fn fail_everything(&self, error: &EngineError) {
        self.budget.close(error);
        let queue = std::mem::take(&mut *self.queue.lock());
        for pending in queue {
            pending.promise.resolve(Err(error.clone()));
        }
        let ahead = std::mem::take(&mut *self.ahead.lock());
        ahead.fail(error);
        let open = self.take_open_group();
        for answer in open.answers {
            answer.fail(error);
        }
        for promise in open.barriers {
            promise.resolve(Err(error.clone()));
        }
        let apply = std::mem::take(&mut *self.apply_queue.lock());
        for item in apply {
            item.fail(error);
        }
    }

    pub(crate) fn wake_all(&self) {
        self.signals.admission.notify();
        self.signals.journal.notify();
        self.signals.store.notify();
        self.signals.background.notify();
        self.signals.sync.notify();
        self.signals.ahead.notify();
    }
}
