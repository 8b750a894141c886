//! The workload: who uses the node, all at the same time. Each is a plain async function that ends when the node is of
//! no use any more, and is begun anew with the node's next life.

mod churn;
mod janitor;
mod keyed;
pub mod members;
mod mover;
mod observer;
mod producer;
mod reader;
mod register;
mod sourced;
mod task;
pub mod transactor;
mod zombie;

pub use janitor::{COMPACTED as COMPACTED_ASKED, DELETED, EXPIRED};
pub use observer::SNAPSHOT;
pub use producer::{DUPLICATE, OUT_OF_ORDER as BEHIND_REFUSED, SHORTAGE_ENDED};
pub use reader::OUT_OF_RANGE;
pub use register::CONFLICT;
pub use sourced::TOO_LATE;
pub use task::{FENCED as STEP_FENCED, PIPELINED};
pub use zombie::FENCED as ZOMBIE_FENCED;

use std::future::Future;
use std::pin::Pin;

use mainstem_broker::NewTopic;
use mainstem_record::{Batch, BatchBuilder, Compression};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::world::Client;

/// Where tasks read; producers write there.
pub const INPUT: &str = "input";
/// Where tasks write.
pub const OUTPUT: &str = "output";
/// Whose records are deleted by offset.
pub const EVENTS: &str = "events";
/// Whose records expire.
pub const SHORT: &str = "short";
/// Compacted.
pub const KEYED: &str = "keyed";
/// Compacted, and deleted by size.
pub const BOTH: &str = "both";
/// Transactional producers write there, and nothing of it is ever deleted.
pub const LEDGER: &str = "ledger";
/// Appended to at an expected offset only.
pub const SOURCED: &str = "sourced";

/// Idempotent producers.
pub const PRODUCERS: usize = 4;
const TASKS: u32 = 2;
/// Names of topics that come and go.
const CHURNED: [&str; 2] = ["come", "go"];

/// After so long records of [`SHORT`] expire.
pub const SHORT_MS: i64 = 300;
/// So long a record of [`KEYED`] says that its key is gone.
pub const KEYED_TOMBSTONE_MS: i64 = 100;
/// So long a record of [`BOTH`] does: what Kafka has where nothing is said.
pub const BOTH_TOMBSTONE_MS: i64 = 86_400_000;
/// So much of [`BOTH`] stays, at least.
pub const BOTH_BYTES: u64 = 6_000;

/// Topics that idempotent producers write to, with their partitions.
const PRODUCED: [(&str, u32); 3] = [(INPUT, TASKS), (EVENTS, 3), (SHORT, 2)];
/// Topics that are compacted, with their partitions.
const COMPACTED: [(&str, u32); 2] = [(KEYED, 2), (BOTH, 1)];
/// All topics that stay, with their partitions.
pub const TOPICS: [(&str, u32); 8] = [
    (INPUT, TASKS),
    (OUTPUT, TASKS),
    (EVENTS, 3),
    (SHORT, 2),
    (KEYED, 2),
    (BOTH, 1),
    (SOURCED, 1),
    (LEDGER, 3),
];

/// What a topic that stays is created with.
pub fn new_topic(name: &str, partitions: u32) -> NewTopic {
    let new = NewTopic::named(name).partitions(partitions);
    match name {
        SHORT => new.config("retention.ms", SHORT_MS.to_string()),
        KEYED => new
            .config("cleanup.policy", "compact")
            .config("min.cleanable.dirty.ratio", "0.1")
            .config("delete.retention.ms", KEYED_TOMBSTONE_MS.to_string()),
        BOTH => new
            .config("cleanup.policy", "compact,delete")
            .config("min.cleanable.dirty.ratio", "0.2")
            .config("retention.bytes", BOTH_BYTES.to_string()),
        _ => new,
    }
}

/// One of them, with a name for the trace.
pub type Actor = (&'static str, Pin<Box<dyn Future<Output = ()>>>);

/// Everybody, for one life of the node, with the members of these groups.
pub fn all(groups: &[usize], mut client: impl FnMut() -> Client) -> Vec<Actor> {
    let mut actors: Vec<Actor> = Vec::new();
    for me in 0..PRODUCERS {
        actors.push(("producer", Box::pin(producer::run(client(), me))));
    }
    actors.push(("zombie", Box::pin(zombie::run(client()))));
    for _ in 0..3 {
        actors.push(("reader", Box::pin(reader::run(client()))));
    }
    for task in 0..TASKS {
        actors.push(("task", Box::pin(task::run(client(), task, true))));
    }
    actors.push(("rival", Box::pin(task::run(client(), 0, false))));
    for _ in 0..2 {
        actors.push(("keyed", Box::pin(keyed::run(client()))));
        actors.push(("register", Box::pin(register::run(client()))));
        actors.push(("sourced", Box::pin(sourced::run(client()))));
    }
    for me in 0..transactor::TRANSACTORS {
        actors.push(("transactor", Box::pin(transactor::run(client(), me))));
    }
    actors.extend(members::all(groups, &mut client));
    actors.push(("mover", Box::pin(mover::run(client()))));
    for name in CHURNED {
        actors.push(("churn", Box::pin(churn::run(client(), name))));
    }
    actors.push(("janitor", Box::pin(janitor::run(client()))));
    actors.push(("observer", Box::pin(observer::run(client()))));
    actors
}

/// A batch of values without keys.
fn batch(
    rng: &mut SmallRng,
    producer: Option<(i64, i16, i32)>,
    values: &[String],
    timestamp_ms: i64,
) -> Batch {
    let compression = if rng.random_bool(0.1) {
        Compression::Lz4
    } else {
        Compression::None
    };
    let mut builder = BatchBuilder::new(compression, 1 << 20);
    if let Some((id, epoch, sequence)) = producer {
        builder.producer(id, epoch, sequence);
    }
    for value in values {
        let added = builder.append(timestamp_ms, None, Some(value.as_bytes()), &[]);
        added.expect("it fits");
    }
    builder.build().expect("a batch of records")
}

/// A value's length: mostly short, now and then long enough to fill files and groups.
fn filler(rng: &mut SmallRng) -> String {
    let length = match rng.random_range(0..100) {
        0..3 => rng.random_range(500..4_000),
        3..20 => rng.random_range(50..300),
        _ => rng.random_range(0..30),
    };
    "x".repeat(length)
}
