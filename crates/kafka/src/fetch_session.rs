//! Fetch sessions (KIP-227): a client that reads the same partitions again and again names them once, then only what
//! changes, and is told only of partitions that have something new.
//!
//! A session belongs to its connection and ends with it; Kafka's clients keep theirs on one connection, and begin a new one
//! where the broker does not know theirs.

use std::collections::BTreeMap;
use std::ops::Bound;

use kafka_protocol::ResponseError;

use crate::codec::fetch::{NO_SESSION, Partition, PartitionResult, Request};
use crate::topic_ref::TopicRef;

/// The epoch that begins a session.
const INITIAL: i32 = 0;
/// Partitions of a session at most.
const MAX_PARTITIONS: usize = 100_000;

/// A partition of a session or of a single fetch.
pub(crate) type Key = (TopicRef, i32);

/// What a session knows of one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    wanted: Partition,
    /// High watermark, log start and error that the client was told last; none yet for a new one.
    told: Option<(i64, i64, i16)>,
}

#[derive(Debug)]
pub(crate) struct FetchSession {
    id: i32,
    next_epoch: i32,
    partitions: BTreeMap<Key, Known>,
    /// The partition that came last when an answer was full: reading goes on behind it.
    last: Option<Key>,
}

/// What one request reads.
#[derive(Debug)]
pub(crate) struct Reads {
    /// In the order in which they are read.
    pub(crate) partitions: Vec<(Key, Partition)>,
    /// The session they belong to, 0 without one.
    pub(crate) session_id: i32,
    /// Only what is new is answered.
    pub(crate) incremental: bool,
}

/// Takes a request into account: begins, changes or ends the connection's session. An error is the answer as a whole.
pub(crate) fn take(
    session: &mut Option<FetchSession>,
    request: Request,
    new_id: impl FnOnce() -> i32,
) -> Result<Reads, ResponseError> {
    if request.session_epoch == NO_SESSION || request.session_epoch == INITIAL {
        if session
            .as_ref()
            .is_some_and(|open| open.id == request.session_id)
        {
            *session = None;
        }
        let partitions: Vec<(Key, Partition)> = named(&request).collect();
        let begins = request.session_epoch == INITIAL
            && !partitions.is_empty()
            && partitions.len() <= MAX_PARTITIONS;
        let session_id = if begins { new_id() } else { 0 };
        if begins {
            *session = Some(FetchSession::new(session_id, &partitions));
        }
        return Ok(Reads {
            partitions,
            session_id,
            incremental: false,
        });
    }
    let open = session
        .as_mut()
        .filter(|open| open.id == request.session_id)
        .ok_or(ResponseError::FetchSessionIdNotFound)?;
    open.go_on(&request)?;
    Ok(Reads {
        partitions: open.in_turn(),
        session_id: open.id,
        incremental: true,
    })
}

fn named(request: &Request) -> impl Iterator<Item = (Key, Partition)> {
    request.topics.iter().flat_map(|topic| {
        let key = |partition: &Partition| (topic.topic.clone(), partition.index);
        topic
            .partitions
            .iter()
            .map(move |partition| (key(partition), *partition))
    })
}

impl FetchSession {
    fn new(id: i32, partitions: &[(Key, Partition)]) -> FetchSession {
        let known = |(key, wanted): &(Key, Partition)| {
            (
                key.clone(),
                Known {
                    wanted: *wanted,
                    told: None,
                },
            )
        };
        FetchSession {
            id,
            next_epoch: 1,
            partitions: partitions.iter().map(known).collect(),
            last: None,
        }
    }

    fn go_on(&mut self, request: &Request) -> Result<(), ResponseError> {
        if request.session_epoch != self.next_epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        let by_id = |topic: &TopicRef| matches!(topic, TopicRef::Id(_));
        let known_by_id = self.partitions.keys().next().map(|(topic, _)| by_id(topic));
        if let (Some(known), Some(((topic, _), _))) = (known_by_id, named(request).next())
            && known != by_id(&topic)
        {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        self.next_epoch = self.next_epoch.checked_add(1).unwrap_or(1);
        for (key, wanted) in named(request) {
            let known = self.partitions.entry(key);
            known
                .and_modify(|known| known.wanted = wanted)
                .or_insert(Known { wanted, told: None });
        }
        if self.partitions.len() > MAX_PARTITIONS {
            return Err(ResponseError::InvalidRequest);
        }
        for forgotten in &request.forgotten {
            for index in &forgotten.partitions {
                self.partitions.remove(&(forgotten.topic.clone(), *index));
            }
        }
        Ok(())
    }

    /// All partitions, those behind the one that was read last first, so that each has its turn.
    fn in_turn(&self) -> Vec<(Key, Partition)> {
        let behind = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let upto = self
            .last
            .as_ref()
            .map(|last| self.partitions.range(..=last));
        let rest = self.partitions.range((behind, Bound::Unbounded));
        rest.chain(upto.into_iter().flatten())
            .map(|(key, known)| (key.clone(), known.wanted))
            .collect()
    }

    /// Notes what the client is told of a partition; whether it has to be.
    pub(crate) fn tell(&mut self, key: &Key, result: &PartitionResult) -> bool {
        let Some(known) = self.partitions.get_mut(key) else {
            return true;
        };
        let telling = (result.high_watermark, result.log_start, result.error_code);
        let has_records = !result.records.is_empty();
        let changed = known.told.replace(telling) != Some(telling);
        if has_records {
            self.last = Some(key.clone());
        }
        has_records || changed || result.error_code != 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::codec::fetch::{Forgotten, Topic};

    fn partition(index: i32, offset: i64) -> Partition {
        Partition {
            index,
            leader_epoch: -1,
            offset,
            max_bytes: 100,
        }
    }

    fn request(id: i32, epoch: i32, partitions: &[Partition], forgotten: &[i32]) -> Request {
        let topic = TopicRef::Name("t".into());
        Request {
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 100,
            read_committed: false,
            session_id: id,
            session_epoch: epoch,
            topics: vec![Topic {
                topic: topic.clone(),
                partitions: partitions.to_vec(),
            }],
            forgotten: vec![Forgotten {
                topic,
                partitions: forgotten.to_vec(),
            }],
        }
    }

    fn indexes(reads: &Reads) -> Vec<i32> {
        reads
            .partitions
            .iter()
            .map(|((_, index), _)| *index)
            .collect()
    }

    fn result(high_watermark: i64, records: bool) -> PartitionResult {
        PartitionResult {
            index: 0,
            error_code: 0,
            high_watermark,
            last_stable: high_watermark,
            log_start: 0,
            aborted: None,
            records: records
                .then(|| bytes::Bytes::from_static(b"batch").into())
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn a_session_names_its_partitions_once_and_then_what_changes() {
        let mut session = None;
        let all = [partition(0, 0), partition(1, 0), partition(2, 0)];
        let first = take(&mut session, request(0, 0, &all, &[]), || 7).unwrap();
        assert_eq!((first.session_id, first.incremental), (7, false));
        let second = request(7, 1, &[partition(1, 5)], &[2]);
        let second = take(&mut session, second, || panic!("it has one")).unwrap();
        assert!(second.incremental);
        assert_eq!(indexes(&second), [0, 1]);
        assert_eq!(second.partitions[1].1.offset, 5);
    }

    #[test]
    fn wrong_sessions_and_epochs_are_told() {
        let mut session = None;
        let again = |session: &mut Option<FetchSession>, id, epoch| {
            take(session, request(id, epoch, &[partition(0, 0)], &[]), || 7)
                .map(|reads| reads.session_id)
        };
        assert_eq!(
            again(&mut session, 3, 1),
            Err(ResponseError::FetchSessionIdNotFound)
        );
        assert_eq!(again(&mut session, 0, 0), Ok(7));
        assert_eq!(
            again(&mut session, 8, 1),
            Err(ResponseError::FetchSessionIdNotFound)
        );
        assert_eq!(
            again(&mut session, 7, 2),
            Err(ResponseError::InvalidFetchSessionEpoch)
        );
        assert_eq!(again(&mut session, 7, 1), Ok(7));
        assert_eq!(again(&mut session, 7, -1), Ok(0));
        assert_eq!(
            again(&mut session, 7, 2),
            Err(ResponseError::FetchSessionIdNotFound)
        );
    }

    #[test]
    fn epochs_wrap_to_one() {
        let mut session = None;
        take(&mut session, request(0, 0, &[partition(0, 0)], &[]), || 7).unwrap();
        session.as_mut().unwrap().next_epoch = i32::MAX;
        take(&mut session, request(7, i32::MAX, &[], &[]), || 0).unwrap();
        take(&mut session, request(7, 1, &[], &[]), || 0).unwrap();
    }

    #[test]
    fn only_what_is_new_is_told_and_each_partition_has_its_turn() {
        let mut session = None;
        let all = [partition(0, 0), partition(1, 0), partition(2, 0)];
        take(&mut session, request(0, 0, &all, &[]), || 7).unwrap();
        let key = |index| (TopicRef::Name("t".into()), index);
        let open = session.as_mut().unwrap();
        assert!(open.tell(&key(0), &result(3, false)));
        assert!(!open.tell(&key(0), &result(3, false)));
        assert!(open.tell(&key(0), &result(4, false)));
        assert!(open.tell(&key(0), &result(4, true)));
        let next = take(&mut session, request(7, 1, &[], &[]), || 0).unwrap();
        assert_eq!(indexes(&next), [1, 2, 0]);
    }

    #[test]
    fn names_and_ids_are_not_mixed_in_a_session() {
        let mut session = None;
        take(&mut session, request(0, 0, &[partition(0, 0)], &[]), || 7).unwrap();
        let mut by_id = request(7, 1, &[partition(0, 0)], &[]);
        by_id.topics[0].topic = TopicRef::Id(1);
        let refused = take(&mut session, by_id, || 0).unwrap_err();
        assert_eq!(refused, ResponseError::FetchSessionTopicIdError);
    }
}
