//! From the command line to a connection, and from the client's errors to the command's.

use super::Common;
use crate::failure::Failure;
use mainstem_client::{Client, ClientError, ClientOptions};

/// Where a server listens unless told otherwise.
const USUAL_SERVER: &str = "127.0.0.1:7400";

/// Connects to the server that was named, or to the usual one.
pub async fn connect(common: &Common) -> Result<Client, Failure> {
    let server = with_port(common.server.as_deref().unwrap_or(USUAL_SERVER));
    let options = ClientOptions::new(server).tenant(&common.tenant);
    Ok(Client::connect(options).await?)
}

/// An address without a port means the usual one.
fn with_port(server: &str) -> String {
    // Behind the brackets, if it is an IPv6 address.
    let end = server.rsplit(['/', ']']).next().unwrap_or(server);
    match server.is_empty() || end.contains(':') {
        true => server.into(),
        false => format!("{server}:7400"),
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::new(error.code(), &error, error.hint().unwrap_or_default())
    }
}

/// `name=value`, as it is given to `--set`.
pub fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as name=value")?;
    Ok((name.trim().to_string(), value.trim().to_string()))
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn a_port_may_be_left_out() {
        assert_eq!(with_port("localhost"), "localhost:7400");
        assert_eq!(with_port("http://10.0.0.1"), "http://10.0.0.1:7400");
        assert_eq!(with_port("[::1]"), "[::1]:7400");
        for whole in ["127.0.0.1:1", "http://h:1", "[::1]:1", ""] {
            assert_eq!(with_port(whole), whole);
        }
    }
}
