//! Fetching for a socket: batches that stand in a segment are handed out as a stretch of its file, for gateways that send
//! them by the operating system.

use mainstem_log::{Piece, PieceLimits, Pieces, Stopped};

use crate::broker::Broker;
use crate::fetch::{AbortedTransaction, named, partition_of};
use crate::topic::Topic;
use crate::{BrokerError, Caller};

/// What was found.
#[derive(Clone, Debug)]
pub struct FetchedPieces {
    /// In offset order without gaps; each is one or more batches, whole.
    pub pieces: Vec<Piece>,
    /// Where reading goes on: the offset asked for, or the one after the last batch.
    pub next_offset: i64,
    /// Why it ended there.
    pub stopped: Stopped,
    /// The first offset that cannot be read yet.
    pub high_watermark: i64,
    /// The first offset of an open transaction, or the high watermark.
    pub last_stable: i64,
    /// The first offset that exists.
    pub log_start: i64,
    /// As in [`Fetched`](crate::Fetched), in no order.
    pub aborted: Vec<AbortedTransaction>,
}

impl Broker {
    /// Reads from an offset on, of a topic that the caller has looked up, within the limits. Never waits for data, and waits
    /// for a disk only where the limits allow it to look into files.
    pub fn fetch_pieces(
        &self,
        caller: &Caller,
        topic: &Topic,
        partition: u32,
        offset: i64,
        limits: &PieceLimits,
    ) -> Result<FetchedPieces, BrokerError> {
        let partition = partition_of(caller, topic, partition)?;
        let Pieces {
            pieces,
            next_offset,
            stopped,
            start,
            high_watermark,
            last_stable,
            aborted,
        } = self
            .inner
            .engine
            .log()
            .read_pieces(partition, offset, limits)
            .map_err(|error| named(error, topic, partition))?;
        let records = u64::try_from(next_offset - offset).unwrap_or_default();
        let bytes: usize = pieces.iter().map(Piece::len).sum();
        topic.traffic.fetched(records, bytes as u64);
        let aborted = aborted.iter().map(|one| AbortedTransaction {
            producer_id: one.producer_id,
            first_offset: one.first_offset,
        });
        Ok(FetchedPieces {
            pieces,
            next_offset,
            stopped,
            high_watermark,
            last_stable: last_stable.min(high_watermark),
            log_start: start,
            aborted: aborted.collect(),
        })
    }
}
