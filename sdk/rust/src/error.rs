use std::fmt;

/// Why an event could not be handled: any error, or a message. `?` turns every error into it.
pub struct Error(String);

/// What a handler returns.
pub type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    /// An error with a message.
    pub fn new(message: impl Into<String>) -> Error {
        Error(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// `Error` is deliberately no `std::error::Error` itself, or this could not cover all of them.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Error {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        Error(message)
    }
}
