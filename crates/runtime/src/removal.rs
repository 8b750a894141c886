//! Removing a handler: its tasks are fenced off, then state and offsets go in bounded frames, the catalogue entry last.
//! Whatever a crash leaves is removed when the runtime is opened again.

use std::ops::ControlFlow;

use bytes::Bytes;
use mainstem_engine::Engine;
use mainstem_store::{Family, StoreOp, prefix_end};

use crate::catalog::{self, HandlerRecord};
use crate::fence::{self, Fence};
use crate::{RuntimeError, keys};

/// Keys of one frame at most, and their bytes.
const KEYS_PER_FRAME: usize = 4096;
const BYTES_PER_FRAME: usize = 128 << 10;

/// Removes all that the handler has in the store.
pub(crate) async fn remove(engine: &Engine, record: &HandlerRecord) -> Result<(), RuntimeError> {
    for (partition, shard) in record.tasks() {
        remove_task(engine, shard, record.id, partition).await?;
    }
    remove_entry(engine, record).await
}

/// Deletes the entry if it still is this handler's: another removal may have been first, and the name have a new owner.
async fn remove_entry(engine: &Engine, record: &HandlerRecord) -> Result<(), RuntimeError> {
    let read = catalog::read(engine, &record.tenant, &record.name)?;
    match read.record {
        Some(found) if found.id == record.id && found.removing => {
            let delete = StoreOp::delete(Family::Catalog, record.key());
            fence::submit(engine, vec![delete], read.checks).await?;
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn remove_task(
    engine: &Engine,
    shard: u16,
    handler: u64,
    partition: u32,
) -> Result<(), RuntimeError> {
    // From here on nothing that the task still has under way is admitted, so what is deleted stays deleted.
    let fence = Fence::take(engine, keys::epoch_key(shard, handler, partition)).await?;
    let prefixes = [
        (Family::State, keys::state_prefix(shard, handler, partition)),
        (
            Family::Offsets,
            keys::offset_prefix(shard, handler, partition),
        ),
    ];
    for (family, prefix) in prefixes {
        loop {
            let found = first_keys(engine, family, &prefix)?;
            if found.is_empty() {
                break;
            }
            fence
                .submit(
                    engine,
                    found
                        .into_iter()
                        .map(|key| StoreOp::delete(family, key))
                        .collect(),
                )
                .await?;
        }
    }
    fence
        .submit(
            engine,
            vec![StoreOp::delete(Family::Offsets, fence.owner.clone())],
        )
        .await?;
    Ok(())
}

fn first_keys(engine: &Engine, family: Family, prefix: &[u8]) -> Result<Vec<Bytes>, RuntimeError> {
    let mut found = Vec::new();
    let mut bytes = 0;
    engine.store().scan(
        family,
        prefix,
        prefix_end(prefix).as_deref(),
        &mut |key, _| {
            found.push(Bytes::copy_from_slice(key));
            bytes += key.len();
            match found.len() < KEYS_PER_FRAME && bytes < BYTES_PER_FRAME {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        },
    )?;
    Ok(found)
}
