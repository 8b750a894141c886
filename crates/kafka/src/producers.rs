//! Identities of idempotent producers.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;
use crate::produce::no_transactions;

/// A new identity. A producer that had one and asks for its epoch to be raised (KIP-360) gets a new one as well: what it
/// numbers anew from 0 is what the old one had not been answered, and its own records stay apart from it.
pub(crate) async fn init(
    client: &Client,
    _call: &Call,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |refusal: Refusal| {
        InitProducerIdResponse::default()
            .with_error_code(refusal.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        return refused(no_transactions());
    }
    match client.broker().init_producer(&client.caller).await {
        Ok(identity) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(identity.id))
            .with_producer_epoch(identity.epoch),
        Err(error) => refused(error.into()),
    }
}
