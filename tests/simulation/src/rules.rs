//! What every frame of the workload must keep to, whatever happens around it: the promises that can be judged from the
//! journal's history alone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use bytes::Bytes;
use mainstem_log::{LogOp, PartitionId, TopicId};
use mainstem_record::Batch;
use mainstem_store::{Family, shard_key};

use crate::groups::{self, Commit};
use crate::history::Frame;
use crate::views::Views;

/// The shard of all keys that the workload writes itself.
pub const SHARD: u16 = 7;

/// The key of a task's input offset.
pub fn task_offset(task: u32) -> Bytes {
    shard_key(SHARD).raw(b"task-offset").u32(task).finish()
}

/// The key of a task's state.
pub fn task_state(task: u32) -> Bytes {
    shard_key(SHARD).raw(b"task-state").u32(task).finish()
}

/// The key, and the name, of a task's fence.
pub fn task_fence(task: u32) -> Bytes {
    shard_key(SHARD).raw(b"task-fence").u32(task).finish()
}

/// The key of a register: a committed offset that is only ever raised by one.
pub fn register(number: u32) -> Bytes {
    shard_key(SHARD).raw(b"register").u32(number).finish()
}

/// A task's state: how many records it has passed, and a hash over all of them in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskState {
    /// Records passed.
    pub count: u64,
    /// Over them.
    pub hash: u64,
}

impl TaskState {
    /// The state after one more record.
    pub fn after(self, record: u64) -> TaskState {
        TaskState {
            count: self.count + 1,
            hash: (self.hash.rotate_left(5) ^ record).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// As it is stored.
    pub fn encode(self) -> String {
        format!("{}:{:016x}", self.count, self.hash)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> TaskState {
        let text = std::str::from_utf8(bytes).expect("a task's state is text");
        let (count, hash) = text.split_once(':').expect("a task's state has two parts");
        TaskState {
            count: count.parse().expect("a count"),
            hash: u64::from_str_radix(hash, 16).expect("a hash"),
        }
    }
}

/// A number as it is stored.
pub fn number(bytes: Option<&Bytes>) -> i64 {
    bytes.map_or(0, |bytes| {
        let text = std::str::from_utf8(bytes).expect("numbers are text");
        text.parse().expect("a number")
    })
}

/// What is known of the workload's topics.
#[derive(Default)]
pub struct Rules {
    /// Where tasks read.
    pub input: Cell<TopicId>,
    /// Where they write.
    pub output: Cell<TopicId>,
    /// Where each record names the offset it was meant for.
    pub sourced: Cell<TopicId>,
    /// Where records go after so many milliseconds.
    pub short: Cell<TopicId>,
    /// So long they stay.
    pub short_ms: Cell<i64>,
    /// How long a record says that its key is gone, of compacted topics.
    pub tombstones_ms: RefCell<BTreeMap<TopicId, i64>>,
    /// Topics whose partitions are cut to a size, and that size in bytes.
    pub cut: RefCell<BTreeMap<TopicId, u64>>,
    /// Topics whose records go by size as well, or whenever somebody asks.
    pub deleted: RefCell<BTreeMap<PartitionId, i64>>,
    /// The workload's other topics: nothing ever goes there.
    pub kept: RefCell<Vec<TopicId>>,
    /// The present, or later.
    pub now_ms: Cell<i64>,
    /// What was ever committed or deleted of groups' offsets.
    pub commits: RefCell<Vec<Commit>>,
}

impl Rules {
    /// Judges a frame by the views before it.
    pub fn before(&self, views: &Views, lsn: u64, frame: &Frame) {
        groups::rules::judge(&self.commits.borrow(), views, lsn, frame);
        for op in &frame.store_ops {
            if op.family == Family::Offsets
                && op
                    .key
                    .get(2..)
                    .is_some_and(|key| key.starts_with(b"register"))
            {
                let key = (op.family, op.key.clone());
                let (old, new) = (number(views.store.get(&key)), number(op.value.as_ref()));
                assert_eq!(
                    new,
                    old + 1,
                    "frame {lsn}: a commit overtook another that it had not seen"
                );
            }
        }
        for op in &frame.log_ops {
            match op {
                LogOp::Append {
                    partition, batch, ..
                } if partition.topic == self.output.get() => {
                    self.step(views, lsn, partition.index, batch, frame);
                }
                LogOp::Append {
                    partition, batch, ..
                } if partition.topic == self.sourced.get() => {
                    for (offset, value) in values(batch) {
                        assert_eq!(
                            value,
                            offset.to_string(),
                            "frame {lsn}: {partition} at {offset}"
                        );
                    }
                }
                LogOp::SetStart { partition, offset } => {
                    self.start(views, lsn, *partition, *offset)
                }
                _ => {}
            }
        }
        let steps = frame.store_ops.iter().any(|op| {
            let key = op.key.get(2..).unwrap_or_default();
            key.starts_with(b"task-offset") || key.starts_with(b"task-state")
        });
        let outputs = frame
            .log_ops
            .iter()
            .any(|op| op.partition().topic == self.output.get());
        assert!(!steps || outputs, "frame {lsn}: a step without its output");
    }

    /// A task's step: the input it names, and the state and output that follow from it, all in one frame.
    fn step(&self, views: &Views, lsn: u64, task: u32, batch: &Bytes, frame: &Frame) {
        let put = |family, key: Bytes| {
            let mut found = frame
                .store_ops
                .iter()
                .filter(|op| op.family == family && op.key == key);
            let one = found.next().and_then(|op| op.value.clone());
            one.unwrap_or_else(|| {
                panic!("frame {lsn}: an output of task {task} without its offset or state")
            })
        };
        let to = number(Some(&put(Family::Offsets, task_offset(task))));
        let state = TaskState::decode(&put(Family::State, task_state(task)));
        let from = number(views.store.get(&(Family::Offsets, task_offset(task))));
        let before = views.store.get(&(Family::State, task_state(task)));
        let mut expected =
            before.map_or_else(TaskState::default, |before| TaskState::decode(before));
        let input = PartitionId::new(self.input.get(), task);
        let input = views
            .partitions
            .get(&input)
            .map_or(&[][..], |part| &part.records);
        let records = input.get(from as usize..to as usize);
        let records = records.unwrap_or_else(|| {
            panic!(
                "frame {lsn}: task {task} passes {from} to {to} of {}",
                input.len()
            )
        });
        for record in records {
            expected = expected.after(record.hash);
        }
        assert_eq!(
            state, expected,
            "frame {lsn}: task {task} from {from} to {to}"
        );
        let outputs = values(batch);
        let wanted = format!("{from}:{to}:{}", state.encode());
        assert!(
            matches!(outputs.as_slice(), [(_, output)] if *output == wanted),
            "frame {lsn}: task {task} wrote {outputs:?}, not {wanted}"
        );
    }

    /// A log start moves only where somebody asked for it, or where time or size allow it.
    fn start(&self, views: &Views, lsn: u64, id: PartitionId, offset: i64) {
        let asked = self.deleted.borrow().get(&id).copied();
        if let Some(stays_bytes) = self.cut.borrow().get(&id.topic)
            && asked.is_none_or(|asked| offset > asked)
        {
            // Compaction may have left less.
            let left = views.partitions[&id].most_bytes(offset);
            assert!(
                left >= *stays_bytes,
                "frame {lsn}: of {id} {left} bytes are left, where {stays_bytes} stay"
            );
        } else if id.topic == self.short.get() {
            let part = &views.partitions[&id];
            let oldest_ms = self.now_ms.get() - self.short_ms.get();
            let gone = part
                .records
                .iter()
                .take(offset as usize)
                .skip(part.start as usize);
            for record in gone {
                assert!(
                    record.timestamp_ms < oldest_ms,
                    "frame {lsn}: {id}: a record of {} is dropped as older than {oldest_ms}",
                    record.timestamp_ms
                );
            }
        } else if let Some(asked) = asked {
            assert!(
                offset <= asked,
                "frame {lsn}: {id} begins at {offset}, asked was {asked}"
            );
        } else {
            assert!(
                !self.kept.borrow().contains(&id.topic),
                "frame {lsn}: records of {id} are dropped"
            );
        }
    }
}

/// The values of a batch as text, with their offsets.
fn values(batch: &Bytes) -> Vec<(i64, String)> {
    let batch = Batch::parse(batch.clone()).expect("batches of frames are sound");
    let records = batch.records().expect("batches of frames are sound");
    records
        .map(|record| {
            let record = record.expect("records of frames are sound");
            let value = record.value.unwrap_or_default();
            (record.offset, String::from_utf8_lossy(&value).into_owned())
        })
        .collect()
}
