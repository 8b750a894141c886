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
    /// Takes the fence with a higher epoch than anybody had. When this returns, all that earlier holders have got
    /// through is visible in the store, and nothing more of theirs will be.
    pub(crate) async fn take(engine: &Engine, owner: Bytes) -> Result<Fence, RuntimeError> {
        let kept = engine.store().get(Family::Offsets, &owner)?;
        let mut epoch = kept.as_deref().and_then(keys::read_number).unwrap_or(0) + 1;
        loop {
            let fence = Fence {
                owner: owner.clone(),
                epoch,
            };
            match fence
                .submit(
                    engine,
                    vec![StoreOp::put(
                        Family::Offsets,
                        owner.clone(),
                        keys::number(epoch),
                    )],
                )
                .await
            {
                Ok(()) => return Ok(fence),
                // Somebody's higher epoch is admitted but not yet in the store.
                Err(EngineError::Fenced { current, .. }) => epoch = current.max(epoch) + 1,
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
