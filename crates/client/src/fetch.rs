//! Reading a topic: one stream over any number of its partitions, which survives the loss of its connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstem_proto::v1::fetch_client::FetchClient;
use mainstem_proto::v1::{self, position};
use mainstem_record::{Batch, Record, RecordError};
use tonic::Streaming;

use crate::backoff::Backoff;
use crate::{Client, ClientError};

/// The largest answer that is accepted, in bytes: one batch, however large, must fit.
const MAX_ANSWER_BYTES: usize = 128 << 20;

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Position {
    /// The first record that can be read.
    #[default]
    Earliest,
    /// Only what comes later.
    Latest,
    /// This offset.
    Offset(i64),
    /// The first record at or after this time, in milliseconds since 1970, UTC.
    Timestamp(i64),
}

impl Position {
    pub(crate) fn to_proto(self) -> v1::Position {
        let at = match self {
            Position::Earliest => position::At::Earliest(position::Earliest {}),
            Position::Latest => position::At::Latest(position::Latest {}),
            Position::Offset(offset) => position::At::Offset(offset),
            Position::Timestamp(timestamp_ms) => position::At::TimestampMs(timestamp_ms),
        };
        v1::Position { at: Some(at) }
    }
}

/// One partition to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Its index.
    pub partition: u32,
    /// Where to start.
    pub at: Position,
    /// Stop before this offset; `None`: at the end as of now, or never where the stream follows.
    pub end_offset: Option<i64>,
}

/// What to read, and how.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Which partitions; empty: all of them, from `start`.
    pub partitions: Vec<Start>,
    /// Where to start when `partitions` is empty.
    pub start: Position,
    /// Whether to go on for ever with what arrives.
    pub follow: bool,
    /// How long the server may hold data back until `min_bytes` have gathered.
    pub max_wait: Duration,
    /// How many bytes of batches are worth an answer.
    pub min_bytes: u32,
    /// How many bytes of batches one answer holds, at most 1 MiB.
    pub max_bytes: u32,
}

impl FetchOptions {
    /// The whole topic, from its earliest records to the end as of now.
    pub fn new(topic: impl Into<Arc<str>>) -> FetchOptions {
        FetchOptions {
            topic: topic.into(),
            partitions: Vec::new(),
            start: Position::Earliest,
            follow: false,
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 1 << 20,
        }
    }

    /// From this position in every partition.
    pub fn start(mut self, start: Position) -> FetchOptions {
        self.start = start;
        self
    }

    /// Goes on for ever with what arrives.
    pub fn follow(mut self) -> FetchOptions {
        self.follow = true;
        self
    }

    /// One partition more, read from this position.
    pub fn partition(mut self, partition: u32, at: Position) -> FetchOptions {
        self.partitions.push(Start {
            partition,
            at,
            end_offset: None,
        });
        self
    }
}

/// A batch that was read.
#[derive(Clone, Debug)]
pub struct FetchedBatch {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index.
    pub partition: u32,
    /// The batch as it stands in the log. It may begin before the first offset asked for, and reach beyond the end:
    /// [`records`](Self::records) leaves these out.
    pub batch: Batch,
    /// The first offset of it that was asked for and not read before.
    pub from_offset: i64,
    /// Records from this offset on were not asked for.
    pub end_offset: Option<i64>,
    /// The first offset of the partition that could not be read yet.
    pub high_watermark: i64,
}

impl FetchedBatch {
    /// Its records that were asked for.
    pub fn records(
        &self,
    ) -> Result<impl Iterator<Item = Result<Record, RecordError>> + use<>, ClientError> {
        let (from, end) = (self.from_offset, self.end_offset.unwrap_or(i64::MAX));
        let records = self.batch.records()?;
        Ok(records.filter(move |record| {
            record
                .as_ref()
                .map_or(true, |record| (from..end).contains(&record.offset))
        }))
    }

    /// The offset at which reading goes on after it.
    pub fn next_offset(&self) -> i64 {
        self.batch
            .next_offset()
            .min(self.end_offset.unwrap_or(i64::MAX))
    }
}

/// How far reading is in one partition.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    next_offset: i64,
    end_offset: Option<i64>,
    high_watermark: i64,
}

impl Cursor {
    fn is_done(&self) -> bool {
        self.end_offset.is_some_and(|end| self.next_offset >= end)
    }
}

/// A topic's batches as they come: in offset order within a partition, without gap and without duplicate, also over lost
/// connections. Reading slowly slows the server down; only one answer is held. Dropping it stops the server's work.
#[derive(Debug)]
pub struct FetchStream {
    client: Client,
    /// A connection of its own.
    fetch: FetchClient<tonic::transport::Channel>,
    options: FetchOptions,
    /// Known after the first answer.
    cursors: BTreeMap<u32, Cursor>,
    answers: Option<Streaming<v1::FetchResponse>>,
    ready: VecDeque<FetchedBatch>,
    backoff: Backoff,
    /// Since when nothing has come back from the server.
    lost: Option<Instant>,
    ended: bool,
}

impl FetchStream {
    /// Asks the server, and takes its first answer: the offsets from which and to which it will read.
    pub(crate) async fn open(
        client: Client,
        options: FetchOptions,
    ) -> Result<FetchStream, ClientError> {
        let fetch =
            FetchClient::new(client.own_channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let mut stream = FetchStream {
            client,
            fetch,
            options,
            cursors: BTreeMap::new(),
            answers: None,
            ready: VecDeque::new(),
            backoff: Backoff::default(),
            lost: None,
            ended: false,
        };
        while stream.cursors.is_empty() {
            if let Err(error) = stream.advance().await {
                stream.failed(error).await?;
            }
        }
        Ok(stream)
    }

    /// The next batch; `None` at the end, which a stream that follows never reaches. Can be dropped and called again at
    /// any point, as in `select!`, without losing anything. After an error the stream is over.
    pub async fn next(&mut self) -> Option<Result<FetchedBatch, ClientError>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Some(Ok(batch));
            }
            if self.ended || self.cursors.values().all(Cursor::is_done) {
                return None;
            }
            if let Err(error) = self.advance().await
                && let Err(error) = self.failed(error).await
            {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    /// The next offset to be read of each partition: what was handed out is below. Records of batches that wait inside
    /// count as not read.
    pub fn positions(&self) -> BTreeMap<u32, i64> {
        let mut positions: BTreeMap<u32, i64> = self
            .cursors
            .iter()
            .map(|(partition, cursor)| (*partition, cursor.next_offset))
            .collect();
        for batch in self.ready.iter().rev() {
            positions.insert(batch.partition, batch.from_offset);
        }
        positions
    }

    /// The end of each partition as last heard: its high watermark.
    pub fn high_watermarks(&self) -> BTreeMap<u32, i64> {
        self.cursors
            .iter()
            .map(|(partition, cursor)| (*partition, cursor.high_watermark))
            .collect()
    }

    /// Takes one answer, connecting first where there is no connection.
    async fn advance(&mut self) -> Result<(), ClientError> {
        let answers = match &mut self.answers {
            Some(answers) => answers,
            None => {
                let request = self.client.request(self.ask());
                let opened = self
                    .fetch
                    .fetch(request)
                    .await
                    .map_err(|status| self.client.error(&status))?;
                self.answers.insert(opened.into_inner())
            }
        };
        match answers.message().await {
            Ok(Some(answer)) => {
                self.lost = None;
                self.backoff.reset();
                answer
                    .partitions
                    .into_iter()
                    .try_for_each(|fetched| self.take(fetched))
            }
            // The server ends a stream only at its end; the cursors say whether this is it.
            Ok(None) if self.cursors.values().all(Cursor::is_done) && !self.cursors.is_empty() => {
                Ok(())
            }
            Ok(None) => Err(ClientError::Unreachable {
                server: self.client.server().into(),
                why: "the stream broke off".into(),
            }),
            Err(status) => Err(self.client.error(&status)),
        }
    }

    /// What to ask for: at first what the options say, later what the cursors say.
    fn ask(&self) -> v1::FetchRequest {
        let partitions = if self.cursors.is_empty() {
            let wanted = self.options.partitions.iter();
            let partition = |start: &Start| v1::FetchPartition {
                partition: start.partition,
                start: Some(start.at.to_proto()),
                end_offset: start.end_offset,
            };
            wanted.map(partition).collect()
        } else {
            let open = self.cursors.iter().filter(|(_, cursor)| !cursor.is_done());
            let partition = |(partition, cursor): (&u32, &Cursor)| v1::FetchPartition {
                partition: *partition,
                start: Some(Position::Offset(cursor.next_offset).to_proto()),
                end_offset: cursor.end_offset,
            };
            open.map(partition).collect()
        };
        v1::FetchRequest {
            topic: self.options.topic.to_string(),
            partitions,
            start: Some(self.options.start.to_proto()),
            follow: self.options.follow,
            max_wait_ms: u32::try_from(self.options.max_wait.as_millis()).unwrap_or(u32::MAX),
            min_bytes: self.options.min_bytes,
            max_bytes: self.options.max_bytes,
        }
    }

    fn take(&mut self, fetched: v1::FetchedPartition) -> Result<(), ClientError> {
        let v1::FetchedPartition {
            partition,
            batches,
            next_offset,
            high_watermark,
            end_offset,
            ..
        } = fetched;
        let cursor = self.cursors.entry(partition).or_insert(Cursor {
            next_offset,
            end_offset,
            high_watermark,
        });
        cursor.high_watermark = cursor.high_watermark.max(high_watermark);
        for mut piece in batches {
            // The whole way is checked: what the network broke is never handed out.
            while let Some(batch) = Batch::split_first(&mut piece)? {
                let next_offset = batch.next_offset();
                if next_offset <= cursor.next_offset || cursor.is_done() {
                    continue;
                }
                self.ready.push_back(FetchedBatch {
                    topic: self.options.topic.clone(),
                    partition,
                    batch,
                    from_offset: cursor.next_offset,
                    end_offset: cursor.end_offset,
                    high_watermark,
                });
                cursor.next_offset = next_offset;
            }
        }
        // Beyond the last batch only where offsets are missing for good.
        cursor.next_offset = cursor.next_offset.max(next_offset);
        Ok(())
    }

    /// After a failure: waits a little if the stream may go on, or says why it cannot.
    async fn failed(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.answers = None;
        let lost = *self.lost.get_or_insert_with(Instant::now);
        let wait = self.backoff.next();
        let patience = self.client.inner.options.reconnect_timeout;
        if !(error.is_connection() || error.is_retriable()) || lost.elapsed() + wait > patience {
            return Err(error);
        }
        tracing::debug!(topic = %self.options.topic, %error, "reading stopped; trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
