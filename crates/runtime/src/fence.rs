//! A task's epoch: taken at each start, kept in the store, checked at admission. Whoever holds a lower one is refused.

use bytes::Bytes;
use mainstem_engine::{Check, Engine, EngineError, Submission};
use mainstem_store::{Family, StoreOp};

use crate::{RuntimeError, keys};

/// The right to write a task's state, until somebody else takes it.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    pub(crate) owner: Bytes,
    pub(crate) epoch: u64,
}

impl Fence {
    /// Takes the fence with a higher epoch than anybody had, and one that nobody else gets. When this returns, all that
    /// earlier holders have got through is visible in the store, and nothing more of theirs will be.
    pub(crate) async fn take(engine: &Engine, owner: Bytes) -> Result<Fence, RuntimeError> {
        let mut admitted = 0;
        loop {
            let (as_of, snapshot) = engine.read_at()?;
            let kept = snapshot.get(Family::Offsets, &owner)?;
            let kept = kept.as_deref().and_then(keys::read_number).unwrap_or(0);
            let fence = Fence {
                owner: owner.clone(),
                epoch: kept.max(admitted) + 1,
            };
            // Of two that have read the same, one gets through, and the other's refusal leaves it the fence.
            let unchanged = Check::Unchanged {
                family: Family::Offsets,
                key: owner.clone(),
                as_of,
            };
            let take = Check::TakeFence {
                owner: owner.clone(),
                epoch: fence.epoch,
            };
            let keep = StoreOp::put(Family::Offsets, owner.clone(), keys::number(fence.epoch));
            match submit(engine, vec![keep], vec![unchanged, take]).await {
                Ok(()) => return Ok(fence),
                Err(EngineError::Conflict { .. } | EngineError::Stale { .. }) => {}
                // An epoch is admitted that the store may never show.
                Err(EngineError::Fenced { current, .. }) => admitted = current,
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn check(&self) -> Check {
        Check::Fence {
            owner: self.owner.clone(),
            epoch: self.epoch,
        }
    }

    /// Changes the store as the holder of the fence.
    pub(crate) async fn submit(
        &self,
        engine: &Engine,
        store_ops: Vec<StoreOp>,
    ) -> Result<(), EngineError> {
        submit(engine, store_ops, vec![self.check()]).await
    }
}

/// Changes the store in one frame.
pub(crate) async fn submit(
    engine: &Engine,
    store_ops: Vec<StoreOp>,
    checks: Vec<Check>,
) -> Result<(), EngineError> {
    let submission = Submission {
        store_ops,
        checks,
        all_or_nothing: true,
        ..Submission::default()
    };
    let permit = engine
        .reserve_with_store(submission.size_bytes(), submission.store_bytes())
        .await?;
    engine.submit(submission, permit).await?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Poll;

    use mainstem_engine::testing::TestNode;

    use super::*;

    const OWNER: Bytes = Bytes::from_static(b"\0\x01task");

    /// Moves both until both are done.
    async fn both<T>(a: impl Future<Output = T>, b: impl Future<Output = T>) -> [T; 2] {
        let (mut a, mut b) = (pin!(a), pin!(b));
        let (mut of_a, mut of_b) = (None, None);
        std::future::poll_fn(|context| {
            if of_a.is_none()
                && let Poll::Ready(output) = a.as_mut().poll(context)
            {
                of_a = Some(output);
            }
            if of_b.is_none()
                && let Poll::Ready(output) = b.as_mut().poll(context)
            {
                of_b = Some(output);
            }
            match (of_a.take(), of_b.take()) {
                (Some(a), Some(b)) => Poll::Ready([a, b]),
                (a, b) => {
                    (of_a, of_b) = (a, b);
                    Poll::Pending
                }
            }
        })
        .await
    }

    #[test]
    fn of_two_that_take_it_at_the_same_moment_one_holds_it() {
        for seed in 0..100 {
            let mut node = TestNode::open(seed).unwrap();
            let engine = node.engine.clone();
            let taking = both(Fence::take(&engine, OWNER), Fence::take(&engine, OWNER));
            let mut fences = node.driver.block_on(taking).map(Result::unwrap);
            fences.sort_by_key(|fence| fence.epoch);
            let [earlier, later] = fences;
            assert!(
                earlier.epoch < later.epoch,
                "seed {seed}: both have {}",
                later.epoch
            );
            let write = |fence: &Fence| {
                let op = StoreOp::put(Family::State, Bytes::from_static(b"\0\x01key"), "1");
                let (fence, engine) = (fence.clone(), engine.clone());
                async move { fence.submit(&engine, vec![op]).await }
            };
            let refused = node.driver.block_on(write(&earlier));
            assert!(
                matches!(refused, Err(EngineError::Fenced { .. })),
                "seed {seed}: {refused:?}"
            );
            node.driver.block_on(write(&later)).unwrap();
        }
    }

    #[test]
    fn the_winner_keeps_what_it_has_taken_until_the_other_tries_again() {
        async fn take_and_write(engine: &Engine) -> (u64, Result<(), EngineError>) {
            let fence = Fence::take(engine, OWNER).await.unwrap();
            (fence.epoch, fence.submit(engine, Vec::new()).await)
        }
        for seed in 0..100 {
            let mut node = TestNode::open(seed).unwrap();
            let engine = node.engine.clone();
            let taking = both(take_and_write(&engine), take_and_write(&engine));
            for (taken, outcome) in node.driver.block_on(taking) {
                match outcome {
                    Ok(()) => {}
                    Err(EngineError::Fenced { current, .. }) if current > taken => {}
                    Err(error) => panic!("seed {seed}: nobody has a higher epoch: {error}"),
                }
            }
        }
    }

    #[test]
    fn an_epoch_that_is_not_in_the_store_is_passed_over() {
        let mut node = TestNode::open(1).unwrap();
        let engine = node.engine.clone();
        let higher = Fence {
            owner: OWNER,
            epoch: 7,
        };
        node.driver
            .block_on(higher.submit(&engine, Vec::new()))
            .unwrap();
        let fence = node.driver.block_on(Fence::take(&engine, OWNER)).unwrap();
        assert_eq!(fence.epoch, 8);
    }
}
