//! The one error of the client.

use std::sync::Arc;

use mainstem_proto::{metadata, v1};
use tonic::{Code, Status};

/// Why a call failed. Cheap to clone: every record of a failed batch gets it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused or failed.
    #[error("{}", .0.message)]
    Server(Arc<ServerError>),
    /// Nothing answers there, or the connection broke and did not come back in time.
    #[error("cannot reach {server}: {why}")]
    Unreachable {
        /// The address.
        server: Arc<str>,
        /// What the network said.
        why: Arc<str>,
    },
    /// The address is none.
    #[error("'{server}' is not a server address: {why}")]
    InvalidServer {
        /// What was given.
        server: Arc<str>,
        /// What is wrong with it.
        why: Arc<str>,
    },
    /// A write was not acknowledged in time; whether it was stored is unknown.
    #[error("not acknowledged within {timeout_ms} ms; the outcome is unknown{}", cause(.last))]
    OutcomeUnknown {
        /// `delivery_timeout`.
        timeout_ms: u64,
        /// The last failure on the way.
        last: Option<Arc<ClientError>>,
    },
    /// A write could not be sent in time; it was not stored.
    #[error("not sent within {timeout_ms} ms, and not stored{}", cause(.last))]
    NotSent {
        /// `delivery_timeout`.
        timeout_ms: u64,
        /// The last failure on the way.
        last: Option<Arc<ClientError>>,
    },
    /// A call took longer than `request_timeout`.
    #[error("no answer from {server} within {timeout_ms} ms")]
    Timeout {
        /// The address.
        server: Arc<str>,
        /// `request_timeout`.
        timeout_ms: u64,
    },
    /// A record that can never be sent.
    #[error(
        "a record of {record_bytes} bytes is larger than {limit_bytes} bytes, the most that can be sent"
    )]
    RecordTooLarge {
        /// Its size.
        record_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// A partition that the topic does not have.
    #[error("topic '{topic}' has no partition {partition}: it has {partitions}, numbered from 0")]
    NoSuchPartition {
        /// The topic.
        topic: Arc<str>,
        /// The partition asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// Bytes that are not what the protocol promises.
    #[error("the server's answer cannot be read: {0}")]
    Protocol(Arc<str>),
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

/// What the server said.
#[derive(Clone, Debug)]
pub struct ServerError {
    /// A stable word for programs, for example `topic_not_found`.
    pub code: String,
    /// What was wrong, for people.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the same call may succeed later.
    pub retriable: bool,
}

fn cause(last: &Option<Arc<ClientError>>) -> String {
    last.as_ref()
        .map_or_else(String::new, |last| format!("; the last failure: {last}"))
}

impl ClientError {
    /// A stable word for programs.
    pub fn code(&self) -> &str {
        match self {
            ClientError::Server(error) => &error.code,
            ClientError::Unreachable { .. } => "unreachable",
            ClientError::InvalidServer { .. } => "invalid_server",
            ClientError::OutcomeUnknown { .. } => "outcome_unknown",
            ClientError::NotSent { .. } => "not_sent",
            ClientError::Timeout { .. } => "timeout",
            ClientError::RecordTooLarge { .. } => "record_too_large",
            ClientError::NoSuchPartition { .. } => "partition_not_found",
            ClientError::Protocol(_) => "protocol",
            ClientError::Closed => "closed",
        }
    }

    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<&str> {
        match self {
            ClientError::Server(error) => error.hint.as_deref(),
            ClientError::Unreachable { .. } => Some(
                "start it with 'mainstem serve', or name another with --server or MAINSTEM_SERVER",
            ),
            ClientError::InvalidServer { .. } => {
                Some("give it as host:port, for example 127.0.0.1:7400")
            }
            // Why it could not be sent, where the server has said so.
            ClientError::NotSent {
                last: Some(last), ..
            } if last.hint().is_some() => last.hint(),
            ClientError::OutcomeUnknown { .. } => Some(
                "read the end of the partition to see whether it is there, or raise delivery_timeout",
            ),
            ClientError::NotSent { .. } => Some("send it again, or raise delivery_timeout"),
            ClientError::Timeout { .. } => {
                Some("the server is busy or stopped: look at its logs, or raise request_timeout")
            }
            ClientError::RecordTooLarge { .. } => {
                Some("split the value, or store it elsewhere and send a reference")
            }
            ClientError::NoSuchPartition { .. } => {
                Some("'mainstem topic describe' shows the partitions")
            }
            ClientError::Protocol(_) => {
                Some("check that client and server are of the same version")
            }
            ClientError::Closed => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Server(error) => error.retriable,
            ClientError::Unreachable { .. }
            | ClientError::Timeout { .. }
            | ClientError::NotSent { .. } => true,
            _ => false,
        }
    }

    /// From a failed call. Without Mainstem's code the failure is of the connection, not of the server.
    pub(crate) fn from_status(status: &Status, server: &str) -> ClientError {
        if let Some(code) = text(status, metadata::CODE) {
            return ClientError::Server(Arc::new(ServerError {
                code,
                message: status.message().to_owned(),
                hint: text(status, metadata::HINT),
                retriable: matches!(
                    status.code(),
                    Code::Unavailable | Code::Aborted | Code::ResourceExhausted
                ),
            }));
        }
        match status.code() {
            Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::Aborted
            // HTTP/2's ENHANCE_YOUR_CALM: the connection was closed under a call, however often others were given up.
            | Code::ResourceExhausted
            | Code::DeadlineExceeded => ClientError::Unreachable {
                server: server.into(),
                why: reason(status).into(),
            },
            code => ClientError::Server(Arc::new(ServerError {
                code: match code {
                    Code::Unimplemented => "unimplemented".to_owned(),
                    Code::OutOfRange => "message_too_large".to_owned(),
                    code => format!("grpc_{}", code as i32),
                },
                message: match code {
                    // What answers there may be no gRPC server at all.
                    Code::Unimplemented => format!("{server} does not serve this call: {}", status.message()),
                    _ => status.message().to_owned(),
                },
                hint: (code == Code::Unimplemented).then(|| {
                    "name the address that the server listens on for gRPC, 127.0.0.1:7400 unless told otherwise; if it is that one, the server is of an older version".to_owned()
                }),
                retriable: false,
            })),
        }
    }

    /// From the refusal of one batch.
    pub(crate) fn from_refusal(error: v1::Error) -> ClientError {
        let v1::Error {
            code,
            message,
            hint,
            retriable,
        } = error;
        let hint = Some(hint).filter(|hint| !hint.is_empty());
        ClientError::Server(Arc::new(ServerError {
            code,
            message,
            hint,
            retriable,
        }))
    }

    pub(crate) fn protocol(why: impl Into<String>) -> ClientError {
        ClientError::Protocol(why.into().into())
    }

    /// Whether the connection, and not the server, is to blame.
    pub(crate) fn is_connection(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. })
    }
}

impl From<mainstem_record::RecordError> for ClientError {
    fn from(error: mainstem_record::RecordError) -> ClientError {
        ClientError::protocol(error.to_string())
    }
}

fn text(status: &Status, name: &str) -> Option<String> {
    let value = status.metadata().get(name)?.to_str().ok()?;
    Some(metadata::decode(value))
}

/// The innermost cause, which names what happened ("Connection refused"), where the outer ones say "transport error".
fn reason(status: &Status) -> String {
    let mut source = std::error::Error::source(status);
    let mut innermost = None;
    while let Some(error) = source {
        innermost = Some(error.to_string());
        source = error.source();
    }
    innermost
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| status.message().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What tonic makes of the reasons for which HTTP/2 ends a stream or a connection.
    #[test]
    fn a_connection_that_http2_ends_is_a_reason_to_try_again() {
        for code in [
            Code::Unavailable,
            Code::Internal,
            Code::Cancelled,
            Code::ResourceExhausted,
            Code::Unknown,
        ] {
            let status = Status::new(code, "h2 protocol error: http2 error");
            let error = ClientError::from_status(&status, "127.0.0.1:7400");
            assert!(error.is_connection() && error.is_retriable(), "{error:?}");
        }
    }

    #[test]
    fn what_the_server_refuses_by_name_is_its_own_answer() {
        let mut status = Status::new(Code::ResourceExhausted, "the tenant has no room left");
        let code = "quota_exceeded".parse().unwrap();
        status.metadata_mut().insert(metadata::CODE, code);
        let error = ClientError::from_status(&status, "127.0.0.1:7400");
        assert!(!error.is_connection() && error.is_retriable(), "{error:?}");
    }
}
