//! What every call has: the platform it is for, and who calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstem::{Broker, Caller, Mainstem, MemorySplit, Runtime};
use mainstem_proto::{MAX_MESSAGE_BYTES, metadata};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::errors;

/// Who calls while nobody is asked for a name.
const ANONYMOUS: &str = "anonymous";

/// The platform as the services see it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Platform {
    pub(crate) mainstem: Mainstem,
    /// What the server listens on, by protocol.
    pub(crate) addresses: Arc<BTreeMap<String, String>>,
    /// Bytes that all produce requests together may have under way.
    pub(crate) room: Arc<Semaphore>,
    /// Components are large: one is received and compiled at a time.
    pub(crate) deploying: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Platform {
    pub(crate) fn new(
        mainstem: Mainstem,
        addresses: BTreeMap<String, String>,
        stopping: watch::Receiver<bool>,
    ) -> Platform {
        // The other half is for what is being received and for answers.
        let split = MemorySplit::of(mainstem.status().memory_limit_bytes);
        let room = usize::try_from(split.gateways_bytes / 2).unwrap_or(usize::MAX);
        let room = room.clamp(MAX_MESSAGE_BYTES, Semaphore::MAX_PERMITS);
        Platform {
            mainstem,
            addresses: Arc::new(addresses),
            room: Arc::new(Semaphore::new(room)),
            deploying: Arc::new(Semaphore::new(1)),
            stopping,
        }
    }

    /// Waits for room for a request of so many bytes.
    pub(crate) async fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let permits = u32::try_from(bytes.min(MAX_MESSAGE_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await;
        room.map_err(|_| errors::stopping())
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.mainstem.broker()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.mainstem.runtime()
    }

    /// The tenant that the call names, and its principal.
    pub(crate) fn caller(&self, call: &MetadataMap) -> Result<Caller, Status> {
        let Some(tenant) = call.get(metadata::TENANT) else {
            return Ok(Caller::anonymous());
        };
        let tenant = tenant.to_str().map(metadata::decode).map_err(|_| {
            let message = format!("the metadata {} is not text", metadata::TENANT);
            errors::status(Code::InvalidArgument, "invalid_tenant", message, None)
        })?;
        Caller::new(&tenant, ANONYMOUS).map_err(|error| errors::broker(&error))
    }

    /// Resolves when the server stops: streams end then.
    pub(crate) fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.clone();
        async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    }
}

/// Milliseconds since 1970, UTC, by this machine's clock.
pub(crate) fn now_ms() -> i64 {
    mainstem::now_ms()
}
