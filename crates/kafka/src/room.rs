//! Room for requests: how many bytes all connections together may have under way.
//!
//! A request takes room as its bytes come, so one that announces much and then is silent holds little. That is holding some
//! while waiting for more, and requests could wait for each other for ever. So one of them at a time, which has waited for a
//! moment in vain, goes on without room: it is answered some day, and then others have what it held. Until then the others
//! wait for room alone. What is under way is bounded by the room and one request.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long room is waited for before one request goes on without.
const PATIENCE: Duration = Duration::from_secs(1);

/// Room for the requests of all connections.
pub(crate) struct RequestRoom {
    bytes: Arc<Semaphore>,
    size: usize,
    /// Held by who may go on without room in a moment, and by who does: one at a time, in their order.
    beyond: Arc<Semaphore>,
    patience: Duration,
}

/// What one request holds of it, until it is answered.
#[derive(Default)]
pub(crate) struct HeldRoom {
    bytes: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

impl RequestRoom {
    pub(crate) fn new(size: usize) -> RequestRoom {
        RequestRoom {
            bytes: Arc::new(Semaphore::new(size)),
            size,
            beyond: Arc::new(Semaphore::new(1)),
            patience: PATIENCE,
        }
    }

    /// How much nobody holds.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.bytes.available_permits()
    }

    /// Takes room for so many bytes more; waits for it, if need be. One that is larger than all room holds all of it.
    pub(crate) async fn grow(&self, held: &mut HeldRoom, bytes: usize) {
        if held.beyond.is_some() {
            return;
        }
        let has = held.bytes.as_ref().map_or(0, |held| held.num_permits());
        let more = u32::try_from(bytes.min(self.size - has)).unwrap_or(u32::MAX);
        if let Ok(permits) = Arc::clone(&self.bytes).try_acquire_many_owned(more) {
            held.add(permits);
            return;
        }
        // Both are waited for, in one place of the line: who holds the other may do so for long. Nobody closes them.
        let mut room = pin!(Arc::clone(&self.bytes).acquire_many_owned(more));
        let beyond = tokio::select! {
            biased;
            permits = &mut room => return permits.into_iter().for_each(|permits| held.add(permits)),
            beyond = Arc::clone(&self.beyond).acquire_owned() => beyond,
        };
        match timeout(self.patience, room).await {
            Ok(permits) => permits.into_iter().for_each(|permits| held.add(permits)),
            Err(_) => held.beyond = beyond.ok(),
        }
    }
}

impl HeldRoom {
    fn add(&mut self, permits: OwnedSemaphorePermit) {
        match &mut self.bytes {
            Some(held) => held.merge(permits),
            none => *none = Some(permits),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::Future;

    use super::*;

    fn held(held: &HeldRoom) -> usize {
        held.bytes.as_ref().map_or(0, |held| held.num_permits())
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.unwrap().block_on(work)
    }

    #[test]
    fn requests_that_hold_all_room_and_want_more_are_all_served_in_the_end() {
        block_on(async {
            let room = RequestRoom {
                patience: Duration::from_millis(10),
                ..RequestRoom::new(100)
            };
            let one = || async {
                let mut mine = HeldRoom::default();
                for _ in 0..5 {
                    room.grow(&mut mine, 10).await;
                    tokio::task::yield_now().await;
                }
            };
            // Two of them fit; after a round all ten hold some, and wait for each other.
            futures::future::join_all((0..10).map(|_| one())).await;
            assert_eq!(room.bytes.available_permits(), 100);
            assert_eq!(room.beyond.available_permits(), 1);
        });
    }

    #[test]
    fn nobody_waits_for_the_one_that_goes_on_without_room() {
        block_on(async {
            let room = RequestRoom {
                patience: Duration::from_millis(10),
                ..RequestRoom::new(100)
            };
            let [mut all, mut without] = [(); 2].map(|()| HeldRoom::default());
            room.grow(&mut all, 100).await;
            room.grow(&mut without, 10).await;
            assert!(without.beyond.is_some());
            let mut third = pin!(async {
                let mut third = HeldRoom::default();
                room.grow(&mut third, 10).await;
                third
            });
            assert!(futures::poll!(&mut third).is_pending());
            drop(all);
            assert_eq!(held(&third.await), 10);
            assert!(without.beyond.is_some(), "it is not answered yet");
        });
    }

    #[test]
    fn one_that_is_larger_than_all_room_holds_all_of_it() {
        block_on(async {
            let room = RequestRoom::new(100);
            let mut large = HeldRoom::default();
            for bytes in [60, 60, 1_000_000_000] {
                room.grow(&mut large, bytes).await;
            }
            assert_eq!(held(&large), 100);
            assert!(large.beyond.is_none());
        });
    }
}
