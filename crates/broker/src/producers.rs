//! Identities of idempotent producers: numbers from a counter in the store, taken in blocks, so that most of them
//! cost no frame. A block that a restart cuts short is not used up; ids only have to be unique.

use std::ops::Range;

use mainstem_engine::{Check, EngineError, Submission};
use mainstem_store::StoreOp;
use parking_lot::Mutex;

use crate::access::{self, Access};
use crate::broker::Broker;
use crate::{BrokerError, Caller, keys};

const BLOCK: i64 = 1_000;
const MAX_TRIES: u32 = 64;

/// Who an idempotent producer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerIdentity {
    /// Unique in the data directory.
    pub id: i64,
    /// Raised when the same id is taken over.
    pub epoch: i16,
}

/// Ids taken from the counter and not given out yet.
#[derive(Default)]
pub(crate) struct ProducerIds {
    free: Mutex<Vec<Range<i64>>>,
}

impl ProducerIds {
    fn take(&self) -> Option<i64> {
        let mut free = self.free.lock();
        loop {
            match free.last_mut()?.next() {
                Some(id) => return Some(id),
                None => free.pop(),
            };
        }
    }
}

impl Broker {
    /// A new identity for an idempotent producer. Its sequences start at 0 on every partition.
    pub async fn init_producer(&self, caller: &Caller) -> Result<ProducerIdentity, BrokerError> {
        access::check(caller, Access::ProducerId)?;
        for _ in 0..MAX_TRIES {
            if let Some(id) = self.inner.producer_ids.take() {
                return Ok(ProducerIdentity { id, epoch: 0 });
            }
            if let Some(block) = self.take_block().await? {
                self.inner.producer_ids.free.lock().push(block);
            }
        }
        Err(BrokerError::Contended {
            what: "the counter of producer ids".into(),
        })
    }

    /// Moves the counter on by a block; `None` when somebody else did so in between.
    async fn take_block(&self) -> Result<Option<Range<i64>>, BrokerError> {
        let engine = &self.inner.engine;
        let key = keys::next_producer_id();
        let (as_of, store) = engine.read_at()?;
        let first = match store.get(keys::FAMILY, &key)? {
            None => 0,
            Some(value) => parse(&value)?,
        };
        drop(store);
        let next = first
            .checked_add(BLOCK)
            .ok_or_else(|| damaged("it has run out"))?;
        let submission = Submission {
            store_ops: vec![StoreOp::put(
                keys::FAMILY,
                key.clone(),
                next.to_be_bytes().to_vec(),
            )],
            checks: vec![Check::Unchanged {
                family: keys::FAMILY,
                key,
                as_of,
            }],
            all_or_nothing: true,
            ..Submission::default()
        };
        let permit = self.reserve(&submission).await?;
        match engine.submit(submission, permit).await {
            Ok(_) => Ok(Some(first..next)),
            Err(EngineError::Conflict { .. } | EngineError::Stale { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn parse(value: &[u8]) -> Result<i64, BrokerError> {
    let bytes = value
        .try_into()
        .map_err(|_| damaged("it is not eight bytes"))?;
    Some(i64::from_be_bytes(bytes))
        .filter(|id| *id >= 0)
        .ok_or_else(|| damaged("it is negative"))
}

fn damaged(why: &str) -> BrokerError {
    BrokerError::DamagedCatalog {
        what: "the counter of producer ids".into(),
        why: why.into(),
    }
}
