//! Service `Fetch`: batches go out as they stand in the log.
//!
//! A stream does nothing that nobody asks for: it reads when the transport has room for an answer, so a reader that
//! stalls pins at most the answer before. At the end of a partition it waits for data, never spins; a timer ends the wait
//! so that the stream is seen to live.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream};
use futures::{FutureExt, StreamExt};
use mainstem::broker::{BrokerError, Isolation, OffsetSpec, Topic};
use mainstem::{Broker, Caller};
use mainstem_proto::{CHUNK_BYTES, v1};
use mainstem_record::{Batch, RecordError};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::call::Platform;
use crate::errors;

/// How long an empty answer is held back when the request does not say.
const DEFAULT_WAIT: Duration = Duration::from_millis(500);
/// The longest that it can say.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The service.
pub(crate) struct Fetch {
    pub(crate) platform: Platform,
}

#[tonic::async_trait]
impl v1::fetch_server::Fetch for Fetch {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<v1::FetchResponse, Status>> + Send>>;

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let reading = Reading::open(&self.platform, caller, request.into_inner())?;
        let answers = futures::stream::unfold(reading, |mut reading| async move {
            let answer = reading.next().await?;
            Some((answer, reading))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn resolve_offsets(
        &self,
        request: Request<v1::ResolveOffsetsRequest>,
    ) -> Result<Response<v1::ResolveOffsetsResponse>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let v1::ResolveOffsetsRequest { topic, positions } = request.into_inner();
        let resolve = |wanted: v1::PartitionPosition| {
            let partition = wanted.partition;
            let offset = resolve(
                self.platform.broker(),
                &caller,
                &topic,
                partition,
                wanted.position,
            )?;
            Ok(v1::PartitionOffset { partition, offset })
        };
        let offsets = positions
            .into_iter()
            .map(resolve)
            .collect::<Result<Vec<_>, BrokerError>>();
        let offsets = offsets.map_err(|error| errors::broker(&error))?;
        Ok(Response::new(v1::ResolveOffsetsResponse { offsets }))
    }
}

/// The offset of a position. One that is given is taken as it is: reading says whether it exists.
fn resolve(
    broker: &Broker,
    caller: &Caller,
    topic: &str,
    partition: u32,
    position: Option<v1::Position>,
) -> Result<i64, BrokerError> {
    use v1::position::At;
    let spec = match position.and_then(|position| position.at) {
        Some(At::Offset(offset)) => return Ok(offset),
        Some(At::TimestampMs(timestamp_ms)) => OffsetSpec::Timestamp(timestamp_ms),
        // The latest that a reader of committed records comes to.
        Some(At::Latest(_)) => OffsetSpec::LastStable,
        Some(At::Earliest(_)) | None => OffsetSpec::Earliest,
    };
    broker.resolve_offset(caller, topic, partition, spec)
}

/// How far reading is in one partition.
struct Cursor {
    partition: u32,
    next_offset: i64,
    /// Where it ends (exclusive); none where it follows.
    end_offset: Option<i64>,
}

impl Cursor {
    fn is_done(&self) -> bool {
        self.end_offset.is_some_and(|end| self.next_offset >= end)
    }
}

/// One stream.
struct Reading {
    broker: Broker,
    caller: Caller,
    topic: Arc<str>,
    /// Offsets mean something in this topic alone, and not in a later one of its name.
    opened: Arc<Topic>,
    cursors: Vec<Cursor>,
    /// Cursors that may have something, in turn.
    ready: VecDeque<usize>,
    /// Cursors at their partition's end, waiting for data.
    waiting: FuturesUnordered<BoxFuture<'static, usize>>,
    /// The first answer, which names where reading starts and ends.
    first: Option<v1::FetchResponse>,
    /// What ends the stream after the next answer.
    failed: Option<Status>,
    max_wait: Duration,
    min_bytes: usize,
    max_bytes: usize,
    stopping: BoxFuture<'static, ()>,
}

impl Reading {
    fn open(
        platform: &Platform,
        caller: Caller,
        request: v1::FetchRequest,
    ) -> Result<Reading, Status> {
        let broker = platform.broker().clone();
        let failed = |error: BrokerError| errors::broker(&error);
        let topic = broker.topic(&caller, &request.topic).map_err(failed)?;
        let mut wanted = request.partitions;
        if wanted.is_empty() {
            let all = 0..topic.partitions;
            let from = |partition| v1::FetchPartition {
                partition,
                start: request.start,
                end_offset: None,
            };
            wanted = all.map(from).collect();
        }
        let mut seen = BTreeSet::new();
        let mut cursors = Vec::with_capacity(wanted.len());
        let mut first = Vec::with_capacity(wanted.len());
        for v1::FetchPartition {
            partition,
            start,
            end_offset,
        } in wanted
        {
            if !seen.insert(partition) {
                return Err(errors::invalid(
                    format!("partition {partition} is named twice"),
                    "name each partition once",
                ));
            }
            let offset =
                resolve(&broker, &caller, &topic.name, partition, start).map_err(failed)?;
            let bounds = broker
                .partition_bounds(&caller, &topic.name, partition)
                .map_err(failed)?;
            if !(bounds.log_start..=bounds.high_watermark).contains(&offset) {
                return Err(failed(BrokerError::OffsetOutOfRange {
                    topic: topic.name.to_string(),
                    partition,
                    offset,
                    start: bounds.log_start,
                    end: bounds.high_watermark,
                }));
            }
            let end_offset = end_offset.or((!request.follow).then_some(bounds.last_stable));
            cursors.push(Cursor {
                partition,
                next_offset: offset,
                end_offset,
            });
            first.push(v1::FetchedPartition {
                partition,
                batches: Vec::new(),
                next_offset: offset,
                high_watermark: bounds.high_watermark,
                log_start_offset: bounds.log_start,
                last_stable_offset: bounds.last_stable,
                end_offset,
            });
        }
        let max_bytes = match request.max_bytes as usize {
            0 => CHUNK_BYTES,
            bytes => bytes.min(CHUNK_BYTES),
        };
        Ok(Reading {
            ready: (0..cursors.len())
                .filter(|index| cursors.get(*index).is_some_and(|cursor| !cursor.is_done()))
                .collect(),
            broker,
            caller,
            topic: topic.name.clone(),
            opened: Arc::clone(&topic),
            cursors,
            waiting: FuturesUnordered::new(),
            first: Some(v1::FetchResponse { partitions: first }),
            failed: None,
            max_wait: match request.max_wait_ms {
                0 => DEFAULT_WAIT,
                wait_ms => Duration::from_millis(wait_ms.into()).min(MAX_WAIT),
            },
            min_bytes: (request.min_bytes as usize).clamp(1, max_bytes),
            max_bytes,
            stopping: platform.stopping().boxed(),
        })
    }

    /// The next answer; `None` at the end.
    async fn next(&mut self) -> Option<Result<v1::FetchResponse, Status>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        if let Some(status) = self.failed.take() {
            self.ready.clear();
            self.waiting.clear();
            return Some(Err(status));
        }
        let until = tokio::time::sleep_until(Instant::now() + self.max_wait);
        tokio::pin!(until);
        let mut partitions = Vec::new();
        let mut bytes = 0;
        loop {
            // Beyond half of the answer's size a further partition may exceed it: its batches are at least one.
            while bytes <= self.max_bytes / 2
                && let Some(index) = self.ready.pop_front()
            {
                match self.read(index, self.max_bytes - bytes) {
                    Ok(Some((fetched, 0))) => {
                        // Passed over what is not delivered, of which there may be much: others have their turn, and the
                        // answer keeps to its time.
                        let is_new = |one: &v1::FetchedPartition| {
                            one.partition != fetched.partition || !one.batches.is_empty()
                        };
                        partitions.retain(is_new);
                        partitions.push(fetched);
                        tokio::task::yield_now().await;
                        if until.deadline() <= Instant::now() {
                            return Some(Ok(v1::FetchResponse { partitions }));
                        }
                    }
                    Ok(Some((fetched, size))) => {
                        bytes += size;
                        partitions.push(fetched);
                    }
                    Ok(None) => {}
                    Err(status) => {
                        self.failed = Some(status);
                        break;
                    }
                }
            }
            if bytes >= self.min_bytes || self.failed.is_some() && !partitions.is_empty() {
                return Some(Ok(v1::FetchResponse { partitions }));
            }
            if let Some(status) = self.failed.take() {
                self.waiting.clear();
                self.ready.clear();
                return Some(Err(status));
            }
            if self.waiting.is_empty() {
                return (!partitions.is_empty()).then_some(Ok(v1::FetchResponse { partitions }));
            }
            tokio::select! {
                Some(index) = self.waiting.next() => self.ready.push_back(index),
                () = &mut until => return Some(Ok(v1::FetchResponse { partitions })),
                () = &mut self.stopping => self.failed = Some(errors::stopping()),
            }
        }
    }

    /// Reads on in one partition. `None` at its end: then it waits for data, or is done.
    fn read(
        &mut self,
        index: usize,
        max_bytes: usize,
    ) -> Result<Option<(v1::FetchedPartition, usize)>, Status> {
        let failed = |error: BrokerError| errors::broker(&error);
        let Some(cursor) = self.cursors.get_mut(index) else {
            return Ok(None);
        };
        let Cursor {
            partition,
            next_offset: offset,
            ..
        } = *cursor;
        // Looked up once: a later topic of the same name is another.
        let (broker, caller, topic) = (&self.broker, &self.caller, &self.opened);
        let fetched = broker
            .fetch_delivered(caller, topic, partition, offset, max_bytes)
            .map_err(failed)?;
        if fetched.next_offset == offset {
            let data = broker
                .wait_for_data(caller, topic, partition, offset, Isolation::ReadCommitted)
                .map_err(failed)?;
            self.waiting.push(data.map(move |()| index).boxed());
            return Ok(None);
        }
        let (batches, next_offset) =
            up_to(fetched.batches, cursor.end_offset, offset).map_err(|error| {
                let message = format!(
                    "damaged data in topic {}, partition {partition}, at offset {offset}: {error}",
                    self.topic
                );
                errors::status(
                    tonic::Code::DataLoss,
                    "damaged",
                    message,
                    Some("check the disk and restore the data"),
                )
            })?;
        // Behind the last batch there may be what is not delivered.
        let next_offset = match cursor.end_offset {
            Some(end) if next_offset >= end => next_offset,
            _ => next_offset.max(fetched.next_offset),
        };
        cursor.next_offset = next_offset;
        if !cursor.is_done() {
            self.ready.push_back(index);
        }
        let size = batches.iter().map(Bytes::len).sum();
        let fetched = v1::FetchedPartition {
            partition,
            batches,
            next_offset,
            high_watermark: fetched.high_watermark,
            log_start_offset: fetched.log_start,
            last_stable_offset: fetched.last_stable,
            end_offset: cursor.end_offset,
        };
        Ok(Some((fetched, size)))
    }
}

/// The pieces without what begins at or after `end`, and the offset at which reading goes on.
fn up_to(
    pieces: Vec<Bytes>,
    end: Option<i64>,
    from: i64,
) -> Result<(Vec<Bytes>, i64), RecordError> {
    let end = end.unwrap_or(i64::MAX);
    let mut kept = Vec::with_capacity(pieces.len());
    let mut next_offset = from;
    for piece in pieces {
        let mut rest = piece.clone();
        let mut length = 0;
        while next_offset < end
            && let Some(batch) = Batch::split_first_trusted(&mut rest)?
        {
            next_offset = batch.next_offset();
            length += batch.bytes().len();
        }
        if length > 0 {
            kept.push(piece.slice(..length));
        }
        if next_offset >= end {
            break;
        }
    }
    Ok((kept, next_offset))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use mainstem_record::{BatchBuilder, assign};

    use super::*;

    /// A batch of so many records at this offset.
    fn batch(base_offset: i64, records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(mainstem_record::Compression::None, 10_000);
        for _ in 0..records {
            builder.append(0, None, Some(b"v"), &[]).unwrap();
        }
        let mut bytes = builder.build().unwrap().bytes().to_vec();
        assign(&mut bytes, base_offset, 0);
        bytes
    }

    #[test]
    fn pieces_are_cut_before_the_first_batch_beyond_the_end() {
        let first = Bytes::from([batch(0, 3), batch(3, 2)].concat());
        let second = Bytes::from(batch(5, 4));
        let pieces = vec![first.clone(), second.clone()];
        assert_eq!(up_to(pieces.clone(), None, 0).unwrap(), (pieces.clone(), 9));
        assert_eq!(
            up_to(pieces.clone(), Some(5), 0).unwrap(),
            (vec![first.clone()], 5)
        );
        assert_eq!(
            up_to(pieces.clone(), Some(6), 0).unwrap(),
            (pieces.clone(), 9)
        );
        let three = first.slice(..batch(0, 3).len());
        assert_eq!(up_to(pieces, Some(2), 1).unwrap(), (vec![three], 3));
    }
}
