//! Handlers: deploy, list, status, pause, resume, remove.

use bytes::Bytes;
use futures::stream;
use mainstem_proto::CHUNK_BYTES;
use mainstem_proto::v1::handlers_client::HandlersClient;
use mainstem_proto::v1::{
    DeployRequest, Handler, HandlerStatusRequest, ListHandlersRequest, PauseHandlerRequest,
    RemoveHandlerRequest, ResumeHandlerRequest, deploy_request::Part,
};

use crate::{Client, ClientError};

/// How a component is deployed. `component_bytes` is filled in.
pub use mainstem_proto::v1::Deployment;

impl Client {
    /// Deploys a component, or a new version of it. Takes as long as the server needs to compile it.
    pub async fn deploy(
        &self,
        deployment: Deployment,
        component: Bytes,
    ) -> Result<Handler, ClientError> {
        let first = Part::Deployment(Deployment {
            component_bytes: component.len() as u64,
            ..deployment
        });
        let chunks = (0..component.len())
            .step_by(CHUNK_BYTES)
            .map(move |at| Part::Chunk(component.slice(at..component.len().min(at + CHUNK_BYTES))));
        let parts = std::iter::once(first)
            .chain(chunks)
            .map(|part| DeployRequest { part: Some(part) });
        let answer = HandlersClient::new(self.channel())
            .deploy(self.request(stream::iter(parts)))
            .await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| self.error(&status))
    }

    /// The tenant's handlers, ordered by name.
    pub async fn list_handlers(&self) -> Result<Vec<Handler>, ClientError> {
        let call = |request| async { HandlersClient::new(self.channel()).list(request).await };
        Ok(self.read(call, ListHandlersRequest {}).await?.handlers)
    }

    /// One handler, with its tasks.
    pub async fn handler_status(&self, name: &str) -> Result<Handler, ClientError> {
        let call = |request| async { HandlersClient::new(self.channel()).status(request).await };
        self.read(
            call,
            HandlerStatusRequest {
                name: name.to_owned(),
            },
        )
        .await
    }

    /// Stops a handler's tasks between two steps.
    pub async fn pause_handler(&self, name: &str) -> Result<Handler, ClientError> {
        let call = |request| async { HandlersClient::new(self.channel()).pause(request).await };
        self.read(
            call,
            PauseHandlerRequest {
                name: name.to_owned(),
            },
        )
        .await
    }

    /// Lets a paused or halted handler go on.
    pub async fn resume_handler(&self, name: &str) -> Result<Handler, ClientError> {
        let call = |request| async { HandlersClient::new(self.channel()).resume(request).await };
        self.read(
            call,
            ResumeHandlerRequest {
                name: name.to_owned(),
            },
        )
        .await
    }

    /// Removes a handler, with its state and offsets.
    pub async fn remove_handler(&self, name: &str) -> Result<(), ClientError> {
        let request = self.request(RemoveHandlerRequest {
            name: name.to_owned(),
        });
        self.write(HandlersClient::new(self.channel()).remove(request))
            .await?;
        Ok(())
    }
}
