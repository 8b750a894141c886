//! From the command line to a connection, and from the client's errors to the command's.

use super::Common;
use crate::failure::Failure;
use mainstem_client::{Client, ClientError, ClientOptions};

/// Connects to the server that was named.
pub async fn connect(common: &Common) -> Result<Client, Failure> {
    let options = ClientOptions::new(&common.server).tenant(&common.tenant);
    Ok(Client::connect(options).await?)
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
