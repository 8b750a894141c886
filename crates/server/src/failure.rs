//! How a command fails: a code for scripts, a message and a hint for people, an exit code for the shell.

use serde::Serialize;
use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// A stable name.
    pub code: String,
    /// What was wrong, and where.
    pub message: String,
    /// What to do about it; empty where the message says it all.
    pub hint: String,
    /// 1 for failed, 2 for a wrong call.
    #[serde(skip)]
    pub exit: u8,
}

impl Failure {
    /// A failure while doing what was asked.
    pub fn new(code: impl Into<String>, message: impl Display, hint: impl Into<String>) -> Failure {
        Failure {
            code: code.into(),
            message: message.to_string(),
            hint: hint.into(),
            exit: 1,
        }
    }

    /// A call that makes no sense.
    pub fn usage(message: impl Display, hint: impl Into<String>) -> Failure {
        Failure {
            code: "usage".into(),
            message: message.to_string(),
            hint: hint.into(),
            exit: 2,
        }
    }

    /// An error of the operating system on a path.
    pub fn io(doing: &str, path: impl Display, error: &std::io::Error) -> Failure {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "check the permissions",
            _ => "",
        };
        Failure::new("io", format!("cannot {doing} {path}: {error}"), hint)
    }

    /// Writes it to standard error: as one JSON line for scripts, as text for a person at a terminal.
    pub fn report(&self, json: bool) {
        let mut err = std::io::stderr().lock();
        let written = if json || !err.is_terminal() {
            writeln!(
                err,
                "{{\"error\":{}}}",
                serde_json::to_string(self).unwrap_or_default()
            )
        } else if self.hint.is_empty() {
            writeln!(err, "error: {}", self.message)
        } else {
            writeln!(err, "error: {}\n hint: {}", self.message, self.hint)
        };
        // With standard error gone there is nobody left to tell.
        drop(written);
    }
}

impl From<mainstem::Error> for Failure {
    fn from(error: mainstem::Error) -> Failure {
        Failure::new(error.code(), &error, error.hint())
    }
}

impl From<mainstem_kafka::KafkaError> for Failure {
    fn from(error: mainstem_kafka::KafkaError) -> Failure {
        Failure::new(
            "bad_setting",
            &error,
            "`mainstem serve --help` shows how settings are given",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Failure;

    #[test]
    fn scripts_see_code_message_and_hint() {
        let failure = Failure::new("unknown_topic", "no topic x", "create it");
        let json = serde_json::to_string(&failure).unwrap_or_default();
        assert_eq!(
            json,
            r#"{"code":"unknown_topic","message":"no topic x","hint":"create it"}"#
        );
    }
}
