//! How a producer reaches the server: the seam behind which tests put a network that loses answers.

use std::future::Future;

use futures::StreamExt;
use futures::stream::BoxStream;
use mainstem_proto::v1::produce_client::ProduceClient;
use mainstem_proto::v1::{InitProducerRequest, ProduceRequest, ProduceResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::tracker::{Identity, MAX_IN_FLIGHT};
use crate::{Client, ClientError};

/// A connection for producing. Requests arrive in the order in which they were sent, and are answered in that order,
/// until it breaks; then the outcome of what was not answered is unknown.
pub(crate) struct Wire {
    /// Has room for as many requests as may be under way.
    pub(crate) requests: mpsc::Sender<ProduceRequest>,
    /// Ends, or fails, when the connection is gone.
    pub(crate) answers: BoxStream<'static, Result<ProduceResponse, ClientError>>,
}

/// Makes connections.
pub(crate) trait Transport: Send + Sync + 'static {
    /// Asks for a producer id that nobody has used.
    fn init_producer(&self) -> impl Future<Output = Result<Identity, ClientError>> + Send;
    /// Opens a stream of requests.
    fn open(&self) -> impl Future<Output = Result<Wire, ClientError>> + Send;
}

/// The real one.
pub(crate) struct Grpc {
    client: Client,
    channel: Channel,
}

impl Grpc {
    pub(crate) fn new(client: Client) -> Grpc {
        Grpc {
            channel: client.own_channel(),
            client,
        }
    }
}

impl Transport for Grpc {
    async fn init_producer(&self) -> Result<Identity, ClientError> {
        let call = |request| async {
            ProduceClient::new(self.channel.clone())
                .init_producer(request)
                .await
        };
        let answer = self.client.read(call, InitProducerRequest {}).await?;
        let epoch = i16::try_from(answer.producer_epoch);
        let epoch = epoch.map_err(|_| {
            ClientError::protocol(format!("producer epoch {}", answer.producer_epoch))
        })?;
        Ok(Identity {
            id: answer.producer_id,
            epoch,
        })
    }

    async fn open(&self) -> Result<Wire, ClientError> {
        let (requests, outgoing) = mpsc::channel(MAX_IN_FLIGHT + 1);
        let request = self.client.request(ReceiverStream::new(outgoing));
        let mut produce = ProduceClient::new(self.channel.clone());
        let opened = produce
            .produce_stream(request)
            .await
            .map_err(|status| self.client.error(&status))?;
        let client = self.client.clone();
        let answers = opened
            .into_inner()
            .map(move |answer| answer.map_err(|status| client.error(&status)));
        Ok(Wire {
            requests,
            answers: answers.boxed(),
        })
    }
}
