//! The producers' side of a phase: a thread that hands records over when they are due, and a task that takes the answers.
//!
//! The thread sleeps by the kernel's clock, which is finer than the async runtime's by far: what it oversleeps, about a
//! tenth of a millisecond, counts as latency like everything else that comes after a record was due.

use super::load::{Clock, Counters};
use super::schedule::{Acknowledged, Schedule, Turn};
use crate::failure::Failure;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mainstem_client::{ClientError, Delivered, Delivery, Producer, ProducerRecord};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A value begins with the time at which its record was due.
pub const LEAST_RECORD_BYTES: usize = 8;
/// Values are cut out of so many random letters, so that compression finds neither everything nor nothing.
const LETTERS_BYTES: usize = 1 << 20;
/// Answers taken at a time.
const AT_ONCE: usize = 1024;

/// What one producer sends, and when.
pub struct Sending {
    pub clock: Clock,
    pub schedule: Schedule,
    pub topic: Arc<str>,
    pub record_bytes: usize,
    pub keys: u64,
}

/// A record on its way.
struct Sent {
    due_ns: u64,
    delivery: Delivery,
}

/// Runs one producer to its end: everything it sent is acknowledged, or the first failure.
pub async fn produce(
    producer: Producer,
    sending: Sending,
    counters: Arc<Counters>,
) -> Result<Acknowledged, Failure> {
    let (sent, answers) = unbounded_channel();
    let (clock, window) = (sending.clock, sending.schedule.window.clone());
    let handle = tokio::runtime::Handle::current();
    let (to, counting) = (producer.clone(), Arc::clone(&counters));
    // A thread of its own and not one of the runtime's: it sleeps, and must not be waited for when all is given up.
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name(format!("bench-producer-{}", sending.schedule.producer))
        .spawn(move || {
            let _ = ended.send(handle.block_on(send_all(&to, sending, &sent, &counting)));
        })
        .map_err(|error| {
            Failure::new(
                "io",
                format!("cannot start a thread: {error}"),
                "use fewer --producers",
            )
        })?;
    let mut acknowledged = acknowledge(answers, clock, window, &counters).await?;
    let handed = end
        .await
        .map_err(|_| Failure::new("internal", "a producer's thread failed", ""))??;
    acknowledged.add(&handed);
    producer.close().await?;
    Ok(acknowledged)
}

/// Hands every record over when it is due.
async fn send_all(
    producer: &Producer,
    sending: Sending,
    sent: &UnboundedSender<Sent>,
    counters: &Counters,
) -> Result<Acknowledged, Failure> {
    let records = Records::new(&sending);
    let Sending {
        clock, schedule, ..
    } = sending;
    let mut handed = Acknowledged::new()?;
    for index in 0.. {
        if counters.stopped.load(Ordering::Relaxed) {
            break;
        }
        let (number, now_ns) = (schedule.number(index), clock.now_ns());
        let due_ns = match schedule.turn(number, now_ns) {
            Turn::Over => break,
            Turn::Unsent { due_ns } => {
                handed.record_unsent(&schedule.window, due_ns, now_ns);
                continue;
            }
            Turn::Send { due_ns } => due_ns,
        };
        if due_ns > now_ns {
            std::thread::sleep(Duration::from_nanos(due_ns - now_ns));
        }
        let delivery = producer.send(records.record(number, due_ns)).await?;
        handed.sent += 1;
        counters.sent.fetch_add(1, Ordering::Relaxed);
        if sent.send(Sent { due_ns, delivery }).is_err() {
            // Whoever took the answers has failed, and says why.
            break;
        }
    }
    Ok(handed)
}

/// Makes records.
struct Records {
    topic: Arc<str>,
    letters: Vec<u8>,
    record_bytes: usize,
    keys: u64,
}

impl Records {
    fn new(sending: &Sending) -> Records {
        let letters = 0..(LETTERS_BYTES + sending.record_bytes) as u64;
        Records {
            topic: sending.topic.clone(),
            letters: letters
                .map(|index| b'A' + (mixed(index) % 26) as u8)
                .collect(),
            record_bytes: sending.record_bytes,
            keys: sending.keys,
        }
    }

    fn record(&self, number: u64, due_ns: u64) -> ProducerRecord {
        let mut value = BytesMut::with_capacity(self.record_bytes);
        value.extend_from_slice(&due_ns.to_be_bytes());
        let from = (mixed(number) % LETTERS_BYTES as u64) as usize;
        let letters = self
            .letters
            .get(from..from + self.record_bytes - LEAST_RECORD_BYTES);
        value.extend_from_slice(letters.unwrap_or_default());
        let record = ProducerRecord::new(self.topic.clone()).value(value.freeze());
        match self.keys {
            0 => record,
            keys => record.key(Bytes::from(format!("key-{}", mixed(number) % keys))),
        }
    }
}

/// The time in a record's value.
pub fn due_ns(value: Option<&[u8]>) -> Option<u64> {
    Some(u64::from_be_bytes(*value?.first_chunk()?))
}

/// A number that looks random and is the same in each run: the step of SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Takes the answers. In a partition they come in the order of sending, a batch at a time; so only the oldest of each
/// partition is waited for, and those of its batch are there with it.
async fn acknowledge(
    mut answers: UnboundedReceiver<Sent>,
    clock: Clock,
    window: Range<u64>,
    counters: &Counters,
) -> Result<Acknowledged, Failure> {
    let mut acknowledged = Acknowledged::new()?;
    let mut lanes: BTreeMap<u32, VecDeque<Sent>> = BTreeMap::new();
    let mut oldest = FuturesUnordered::new();
    let mut taken = Vec::with_capacity(AT_ONCE);
    let mut open = true;
    while open || !oldest.is_empty() {
        tokio::select! {
            count = answers.recv_many(&mut taken, AT_ONCE), if open => {
                open = count > 0;
                for sent in taken.drain(..) {
                    let partition = sent.delivery.partition();
                    match lanes.get_mut(&partition) {
                        Some(lane) => lane.push_back(sent),
                        None => {
                            lanes.insert(partition, VecDeque::new());
                            oldest.push(wait_for(partition, sent));
                        }
                    }
                }
            }
            Some((partition, due_ns, result)) = oldest.next(), if !oldest.is_empty() => {
                let now_ns = clock.now_ns();
                let mut count = |due_ns: u64, result: Result<Delivered, ClientError>| {
                    result?;
                    acknowledged.record(&window, due_ns, now_ns);
                    counters.acknowledged.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, Failure>(())
                };
                count(due_ns, result)?;
                while let Some(lane) = lanes.get_mut(&partition) {
                    match lane.pop_front() {
                        None => drop(lanes.remove(&partition)),
                        Some(next) => match next.delivery.result() {
                            Some(result) => count(next.due_ns, result)?,
                            None => {
                                oldest.push(wait_for(partition, next));
                                break;
                            }
                        },
                    }
                }
            }
        }
    }
    Ok(acknowledged)
}

async fn wait_for(partition: u32, sent: Sent) -> (u32, u64, Result<Delivered, ClientError>) {
    let result = sent.delivery.await;
    (partition, sent.due_ns, result)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_carries_its_time_and_has_its_size() {
        for record_bytes in [LEAST_RECORD_BYTES, 9, 1024] {
            let records = Records {
                topic: "t".into(),
                letters: vec![b'A'; LETTERS_BYTES + record_bytes],
                record_bytes,
                keys: 3,
            };
            for number in 0..100 {
                let record = records.record(number, number * 7);
                assert_eq!(record.value.as_ref().unwrap().len(), record_bytes);
                assert_eq!(due_ns(record.value.as_deref()), Some(number * 7));
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                assert!(["key-0", "key-1", "key-2"].contains(&key.as_str()), "{key}");
            }
        }
        assert_eq!(due_ns(Some(b"short")), None);
        assert_eq!(due_ns(None), None);
    }
}
