//! Looking into what clients have compressed, for every gateway: what it takes is bounded for all requests together.

use std::sync::Arc;

use mainstem_broker::{BrokerError, PlacedBatch, Unpacking};
use mainstem_record::RecordError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Mainstem, beside};

/// Bytes that batches may have become larger by, all together, until they are appended.
#[derive(Debug)]
pub(crate) struct Room {
    permits: Arc<Semaphore>,
    bytes: usize,
}

impl Room {
    pub(crate) fn new(bytes: u64) -> Room {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let bytes = usize::try_from(bytes).unwrap_or(most).min(most);
        Room {
            permits: Arc::new(Semaphore::new(bytes)),
            bytes,
        }
    }

    /// Waits for so many bytes; who needs more than there are waits for all of them.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.min(self.bytes)).unwrap_or(u32::MAX);
        // Nobody closes it.
        let taken = Arc::clone(&self.permits).acquire_many_owned(permits).await;
        taken.ok()
    }
}

/// What came of the batches of a request.
#[derive(Debug)]
#[must_use = "the room is to be held until the batches are appended"]
pub struct Unpacked<E> {
    /// Those that are refused, by their index, in order; they are left as they were.
    refused: Vec<(usize, E)>,
    /// What the others hold of the memory kept for what was decompressed.
    pub room: Option<OwnedSemaphorePermit>,
}

impl<E> Unpacked<E> {
    /// Takes those that are refused out of the batches, and what goes with each out of `companions`; `refuse` has that, and why.
    pub fn sort_out<T>(
        &mut self,
        batches: &mut Vec<PlacedBatch>,
        companions: &mut Vec<T>,
        mut refuse: impl FnMut(T, E),
    ) {
        if self.refused.is_empty() {
            return;
        }
        let mut refused = std::mem::take(&mut self.refused).into_iter().peekable();
        let all = std::mem::take(batches).into_iter();
        let all = all.zip(std::mem::take(companions)).enumerate();
        for (index, (batch, companion)) in all {
            match refused.next_if(|(at, _)| *at == index) {
                Some((_, error)) => refuse(companion, error),
                None => {
                    batches.push(batch);
                    companions.push(companion);
                }
            }
        }
    }
}

impl Mainstem {
    /// Looks into the compressed batches of one request, and has all of them in their topics' codecs ([`Unpacking`]).
    /// Others have a turn after each. Waits while what has been decompressed and is not appended yet takes all memory
    /// there is for it.
    pub async fn unpack<E: From<RecordError> + From<BrokerError>>(
        &self,
        batches: &mut [PlacedBatch],
    ) -> Unpacked<E> {
        let mut unpacked = Unpacked {
            refused: Vec::new(),
            room: None,
        };
        let needed = |placed: &PlacedBatch| Unpacking::is_needed(&placed.topic, &placed.batch);
        if !batches.iter().any(needed) {
            return unpacked;
        }
        // Once and before anything is held: so that requests never wait for each other.
        let growths = batches
            .iter()
            .map(|placed| Unpacking::growth_bytes(&placed.topic, &placed.batch));
        let growth_bytes = growths.fold(0, usize::saturating_add);
        let mut room = match growth_bytes {
            0 => None,
            bytes => self.room_to_unpack().take(bytes).await,
        };
        let (mut grown_bytes, mut unpacking) = (0, Unpacking::default());
        for (index, placed) in batches.iter_mut().enumerate() {
            if !needed(placed) {
                continue;
            }
            let mut take = || unpacking.take::<E>(&placed.topic, placed.batch.clone());
            // Compressing takes as long as its level says.
            let taken = match Unpacking::compresses(&placed.topic, &placed.batch) {
                true => beside(take),
                false => take(),
            };
            match taken {
                Ok(batch) => {
                    grown_bytes += batch.size_bytes().saturating_sub(placed.batch.size_bytes());
                    placed.batch = batch;
                }
                Err(error) => unpacked.refused.push((index, error)),
            }
            tokio::task::yield_now().await;
        }
        if let Some(room) = &mut room {
            drop(room.split(room.num_permits().saturating_sub(grown_bytes)));
        }
        unpacked.room = room;
        unpacked
    }
}
