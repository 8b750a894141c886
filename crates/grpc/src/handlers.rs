//! Service `Handlers`.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mainstem::Caller;
use mainstem::runtime::{
    Code, Deployment, HandlerState, HandlerStatus, OnError, RuntimeError, StartFrom, TaskState,
    TaskStatus,
};
use mainstem_proto::v1::{self, deploy_request::Part, error_policy::Policy, position::At};
use tonic::{Request, Response, Status, Streaming};

use crate::call::{Platform, now_ms};
use crate::errors;

/// The largest component that is taken, in bytes.
const MAX_COMPONENT_BYTES: u64 = 64 << 20;

/// The longest that an upload may keep others from theirs.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The service.
pub(crate) struct Handlers {
    pub(crate) platform: Platform,
}

#[tonic::async_trait]
impl v1::handlers_server::Handlers for Handlers {
    async fn deploy(
        &self,
        request: Request<Streaming<v1::DeployRequest>>,
    ) -> Result<Response<v1::Handler>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let deploying = Arc::clone(&self.platform.deploying).acquire_owned().await;
        let deploying = deploying.map_err(|_| errors::stopping())?;
        let received = tokio::time::timeout(UPLOAD_TIMEOUT, receive(request.into_inner())).await;
        let (deployment, component) = received.map_err(|_| {
            errors::invalid(
                "the upload has not come to its end in a minute, and others wait",
                "check the connection and deploy again",
            )
        })??;
        let deployment = to_deployment(deployment, component)?;
        let runtime = self.platform.runtime().clone();
        let here = tokio::runtime::Handle::current();
        // Compiling takes up to seconds of one core.
        let deployed = tokio::task::spawn_blocking(move || {
            let _deploying = deploying;
            here.block_on(async { runtime.deploy(&caller, deployment, now_ms()).await })
        });
        let deployed = deployed.await.map_err(|error| {
            errors::status(
                tonic::Code::Internal,
                "internal",
                format!("the deployment stopped: {error}"),
                None,
            )
        })?;
        handler(deployed)
    }

    async fn list(
        &self,
        request: Request<v1::ListHandlersRequest>,
    ) -> Result<Response<v1::ListHandlersResponse>, Status> {
        let caller = self.platform.caller(request.metadata())?;
        let handlers = self
            .platform
            .runtime()
            .list(&caller)
            .iter()
            .map(from_status)
            .collect();
        Ok(Response::new(v1::ListHandlersResponse { handlers }))
    }

    async fn status(
        &self,
        request: Request<v1::HandlerStatusRequest>,
    ) -> Result<Response<v1::Handler>, Status> {
        let (caller, request) = self.open(request)?;
        handler(self.platform.runtime().status(&caller, &request.name))
    }

    async fn pause(
        &self,
        request: Request<v1::PauseHandlerRequest>,
    ) -> Result<Response<v1::Handler>, Status> {
        let (caller, request) = self.open(request)?;
        handler(
            self.platform
                .runtime()
                .pause(&caller, &request.name, now_ms())
                .await,
        )
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeHandlerRequest>,
    ) -> Result<Response<v1::Handler>, Status> {
        let (caller, request) = self.open(request)?;
        handler(
            self.platform
                .runtime()
                .resume(&caller, &request.name, now_ms())
                .await,
        )
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveHandlerRequest>,
    ) -> Result<Response<v1::RemoveHandlerResponse>, Status> {
        let (caller, request) = self.open(request)?;
        let removed = self
            .platform
            .runtime()
            .remove(&caller, &request.name, now_ms())
            .await;
        removed.map_err(errors::runtime)?;
        Ok(Response::new(v1::RemoveHandlerResponse {}))
    }
}

impl Handlers {
    fn open<T>(&self, request: Request<T>) -> Result<(Caller, T), Status> {
        let caller = self.platform.caller(request.metadata())?;
        Ok((caller, request.into_inner()))
    }
}

fn handler(result: Result<HandlerStatus, RuntimeError>) -> Result<Response<v1::Handler>, Status> {
    result
        .map(|status| Response::new(from_status(&status)))
        .map_err(errors::runtime)
}

/// Takes an upload: how to deploy, and what.
async fn receive(
    mut parts: Streaming<v1::DeployRequest>,
) -> Result<(v1::Deployment, Bytes), Status> {
    let first = parts.message().await?.and_then(|request| request.part);
    let Some(Part::Deployment(deployment)) = first else {
        return Err(errors::invalid(
            "the upload does not begin with a deployment",
            "send `deployment` first, then `chunk`s",
        ));
    };
    let expected = deployment.component_bytes;
    if expected > MAX_COMPONENT_BYTES {
        let message =
            format!("a component of {expected} bytes is larger than {MAX_COMPONENT_BYTES} bytes");
        return Err(errors::status(
            tonic::Code::InvalidArgument,
            "component_too_large",
            message,
            Some("build it in release mode and strip its debug information"),
        ));
    }
    let mut component = BytesMut::new();
    while let Some(request) = parts.message().await? {
        let Some(Part::Chunk(chunk)) = request.part else {
            return Err(errors::invalid(
                "the upload holds something else than chunks",
                "send `deployment` once, then `chunk`s",
            ));
        };
        component.extend_from_slice(&chunk);
        if component.len() as u64 > expected {
            break;
        }
    }
    if component.len() as u64 != expected {
        let message = format!(
            "the component should have {expected} bytes and has {}",
            component.len()
        );
        return Err(errors::invalid(message, "upload it again"));
    }
    Ok((deployment, component.freeze()))
}

fn to_deployment(deployment: v1::Deployment, component: Bytes) -> Result<Deployment, Status> {
    let start = match deployment.start.and_then(|position| position.at) {
        Some(At::Earliest(_)) | None => StartFrom::Earliest,
        Some(At::Latest(_)) => StartFrom::Latest,
        Some(At::TimestampMs(timestamp_ms)) => StartFrom::Timestamp(timestamp_ms),
        Some(At::Offset(_)) => {
            let hint = "start at earliest, latest or a time: an offset says nothing about several partitions";
            return Err(errors::invalid("a handler cannot start at an offset", hint));
        }
    };
    let attempts = |attempts| {
        if attempts == 0 {
            OnError::default().attempts()
        } else {
            attempts
        }
    };
    let on_error = match deployment.on_error.and_then(|on_error| on_error.policy) {
        Some(Policy::DeadLetter(policy)) => OnError::DeadLetter {
            attempts: attempts(policy.attempts),
        },
        Some(Policy::Halt(policy)) => OnError::Halt {
            attempts: attempts(policy.attempts),
        },
        None => OnError::default(),
    };
    let defaults = Deployment::new(deployment.name, Code::Component(component));
    let or = |value, default| if value == 0 { default } else { value };
    Ok(Deployment {
        inputs: deployment.inputs,
        outputs: deployment.outputs,
        start,
        on_error,
        fuel_per_event: or(deployment.fuel_per_event, defaults.fuel_per_event),
        memory_bytes: or(deployment.memory_bytes, defaults.memory_bytes),
        create_topics: deployment.create_topics,
        ..defaults
    })
}

fn from_status(status: &HandlerStatus) -> v1::Handler {
    let state = match status.state {
        HandlerState::Running => v1::HandlerState::Running,
        HandlerState::Paused => v1::HandlerState::Paused,
        HandlerState::Halted => v1::HandlerState::Halted,
        HandlerState::Compiling => v1::HandlerState::Compiling,
        HandlerState::Removing => v1::HandlerState::Removing,
    };
    let policy = match status.on_error {
        OnError::DeadLetter { attempts } => {
            Policy::DeadLetter(v1::error_policy::DeadLetter { attempts })
        }
        OnError::Halt { attempts } => Policy::Halt(v1::error_policy::Halt { attempts }),
    };
    v1::Handler {
        name: status.name.clone(),
        version: status.version.clone(),
        generation: status.generation,
        state: state.into(),
        inputs: status.inputs.clone(),
        outputs: status.outputs.clone(),
        dead_letter_topic: status.dead_letter_topic.clone().unwrap_or_default(),
        on_error: Some(v1::ErrorPolicy {
            policy: Some(policy),
        }),
        fuel_per_event: status.fuel_per_event,
        memory_bytes: status.memory_bytes,
        created_ms: status.created_ms,
        updated_ms: status.updated_ms,
        lag_events: status.lag(),
        events_per_second: status.events_per_second(),
        events: status.events(),
        dead_letters: status.tasks.iter().map(|task| task.dead_letters).sum(),
        last_error: status.last_error().unwrap_or_default().to_owned(),
        tasks: status.tasks.iter().map(from_task).collect(),
    }
}

fn from_task(task: &TaskStatus) -> v1::Task {
    let state = match task.state {
        TaskState::Starting => v1::TaskState::Starting,
        TaskState::Compiling => v1::TaskState::Compiling,
        TaskState::Running => v1::TaskState::Running,
        TaskState::Retrying => v1::TaskState::Retrying,
        TaskState::Paused => v1::TaskState::Paused,
        TaskState::Halted => v1::TaskState::Halted,
        TaskState::Stopped => v1::TaskState::Stopped,
    };
    let inputs = task.inputs.iter().map(|input| v1::InputProgress {
        topic: input.topic.to_string(),
        next_offset: input.offset,
        high_watermark: input.high_watermark,
    });
    v1::Task {
        partition: task.partition,
        state: state.into(),
        inputs: inputs.collect(),
        lag_events: task.lag(),
        events_per_second: task.events_per_second,
        events: task.events,
        outputs: task.outputs,
        steps: task.steps,
        failures: task.failures,
        dead_letters: task.dead_letters,
        last_error: task.last_error.clone().unwrap_or_default(),
        last_error_ms: task.last_error_ms.unwrap_or(0),
    }
}
