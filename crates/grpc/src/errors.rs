//! Errors of the house as gRPC statuses, with their code and hint in the metadata.

use mainstem::broker::BrokerError;
use mainstem::engine::EngineError;
use mainstem::query::QueryError;
use mainstem::runtime::RuntimeError;
use mainstem_proto::{metadata, v1};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// What a header can hold is limited, so that no message can break the answer that carries it.
const MAX_TEXT_BYTES: usize = 2_000;

/// A status with Mainstem's metadata.
pub(crate) fn status(
    code: Code,
    word: &str,
    message: impl Into<String>,
    hint: Option<&str>,
) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(value) = header(word) {
        metadata.insert(metadata::CODE, value);
    }
    if let Some(value) = hint.filter(|hint| !hint.is_empty()).and_then(header) {
        metadata.insert(metadata::HINT, value);
    }
    Status::with_metadata(code, shortened(&message.into()), metadata)
}

fn header(text: &str) -> Option<MetadataValue<Ascii>> {
    metadata::encode(shortened(text)).parse().ok()
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT_BYTES))
        .unwrap_or(text)
}

/// A request that makes no sense, whatever the platform holds.
pub(crate) fn invalid(message: impl Into<String>, hint: &str) -> Status {
    status(
        Code::InvalidArgument,
        "invalid_request",
        message,
        Some(hint),
    )
}

/// The server is stopping: the same call succeeds when it is back.
pub(crate) fn stopping() -> Status {
    broker(&BrokerError::Closed)
}

/// From the broker.
pub(crate) fn broker(error: &BrokerError) -> Status {
    status(
        broker_code(error),
        error.code(),
        error.to_string(),
        error.hint().as_deref(),
    )
}

fn broker_code(error: &BrokerError) -> Code {
    match error {
        BrokerError::TopicNotFound { .. }
        | BrokerError::TopicIdNotFound { .. }
        | BrokerError::PartitionNotFound { .. } => Code::NotFound,
        BrokerError::TopicExists { .. } => Code::AlreadyExists,
        BrokerError::OffsetOutOfRange { .. } => Code::OutOfRange,
        BrokerError::OutOfOrderSequence { .. }
        | BrokerError::DuplicateSequence { .. }
        | BrokerError::OutsideTransaction { .. }
        | BrokerError::ProducerFenced { .. } => Code::FailedPrecondition,
        BrokerError::Contended { .. } => Code::Aborted,
        BrokerError::DiskFull { .. } => Code::ResourceExhausted,
        BrokerError::WritesStopped { .. } | BrokerError::Closed => Code::Unavailable,
        BrokerError::DamagedCatalog { .. } => Code::DataLoss,
        BrokerError::Engine(_) if error.code() == "damaged" => Code::DataLoss,
        BrokerError::Engine(_) => Code::Internal,
        _ => Code::InvalidArgument,
    }
}

/// From the broker, for one batch of several.
pub(crate) fn refusal(error: &BrokerError) -> v1::Error {
    v1::Error {
        code: error.code().to_owned(),
        message: error.to_string(),
        hint: error.hint().unwrap_or_default(),
        retriable: error.is_retriable(),
    }
}

/// From the handlers' runtime.
pub(crate) fn runtime(error: RuntimeError) -> Status {
    let message = error.to_string();
    let (code, word, hint) = match error {
        RuntimeError::Broker(error) => return broker(&error),
        RuntimeError::Engine(error) => return engine(error),
        RuntimeError::UnknownHandler { .. } => (
            Code::NotFound,
            "handler_not_found",
            "'mainstem handler status' lists what is deployed",
        ),
        RuntimeError::InvalidDeployment { .. } => (
            Code::InvalidArgument,
            "invalid_deployment",
            "change the deployment as the message says",
        ),
        RuntimeError::UnknownTopic { role: "output", .. } => (
            Code::NotFound,
            "topic_not_found",
            "create it, or deploy with --create-topics",
        ),
        RuntimeError::UnknownTopic { .. } => (
            Code::NotFound,
            "topic_not_found",
            "create it first: mainstem topic create",
        ),
        RuntimeError::Component(_) => (
            Code::InvalidArgument,
            "invalid_component",
            "deploy the .wasm file that 'mainstem handler build' names",
        ),
        RuntimeError::Removing { .. } => (
            Code::FailedPrecondition,
            "handler_removing",
            "wait until it is gone, then deploy it anew",
        ),
        RuntimeError::Contended { .. } => (Code::Aborted, "contended", "try again"),
        RuntimeError::DamagedModule { .. } | RuntimeError::Catalog { .. } => (
            Code::DataLoss,
            "damaged",
            "deploy the component again, or restore the data directory from a backup",
        ),
        RuntimeError::ModuleFile { .. } => (
            Code::Internal,
            "io",
            "check the data directory: its owner, and its free space",
        ),
        _ => (Code::Internal, "internal", "look at the server's log"),
    };
    status(code, word, message, Some(hint))
}

/// From SQL.
pub(crate) fn query(error: QueryError) -> Status {
    let code = match &error {
        QueryError::Broker(error) => return broker(error),
        QueryError::Syntax { .. }
        | QueryError::UnknownColumn { .. }
        | QueryError::Refused { .. }
        | QueryError::Invalid { .. } => Code::InvalidArgument,
        QueryError::UnknownTable { .. } => Code::NotFound,
        // Not `ResourceExhausted`: the same query needs the same memory again.
        QueryError::Memory { .. } | QueryError::Failed { .. } => Code::FailedPrecondition,
        QueryError::Damaged { .. } => Code::DataLoss,
        QueryError::Engine(_) if error.code() == "damaged" => Code::DataLoss,
        QueryError::Engine(_) => Code::Internal,
    };
    status(code, error.code(), error.to_string(), Some(&error.hint()))
}

fn engine(error: EngineError) -> Status {
    broker(&BrokerError::from(error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn code_and_hint_travel_in_the_metadata() {
        let error = BrokerError::TopicNotFound {
            topic: "flüge".into(),
            near: Vec::new(),
        };
        let status = broker(&error);
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(
            status.metadata().get(metadata::CODE).unwrap(),
            "topic_not_found"
        );
        let hint = status
            .metadata()
            .get(metadata::HINT)
            .unwrap()
            .to_str()
            .unwrap();
        assert_eq!(metadata::decode(hint), error.hint().unwrap());
    }

    #[test]
    fn a_message_without_end_is_cut() {
        let status = status(Code::Internal, "internal", "ü".repeat(100_000), None);
        assert!(status.message().len() <= MAX_TEXT_BYTES);
    }
}
