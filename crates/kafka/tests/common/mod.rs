//! A gateway in this process, and a client that speaks each version as it is written down.
#![allow(dead_code)] // Each test file uses a part.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use mainstem::record::{BatchBuilder, Compression};
use mainstem::{Mainstem, Options};
use mainstem_kafka::Settings;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

pub struct Gateway {
    pub address: SocketAddr,
    pub mainstem: Mainstem,
    settings: BTreeMap<String, String>,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    dir: Option<tempfile::TempDir>,
}

impl Gateway {
    pub fn start() -> Gateway {
        Gateway::start_with(&[])
    }

    pub fn start_with(settings: &[(&str, &str)]) -> Gateway {
        let given: BTreeMap<String, String> = settings
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        Gateway::start_in(tempfile::tempdir().unwrap(), given)
    }

    /// One that listens there.
    pub fn start_at(listener: TcpListener) -> Gateway {
        Gateway::serve(listener, tempfile::tempdir().unwrap(), BTreeMap::new())
    }

    /// One that has read nothing of what this one has written: all of it stands in segments.
    pub fn restart(self) -> Gateway {
        self.restart_after(|_| {})
    }

    /// Where it keeps everything.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// As `restart`, once something has been done to the directory.
    pub fn restart_after(mut self, change: impl FnOnce(&Path)) -> Gateway {
        let dir = self.dir.take().unwrap();
        let settings = self.settings.clone();
        drop(self);
        change(dir.path());
        Gateway::start_in(dir, settings)
    }

    fn start_in(dir: tempfile::TempDir, given: BTreeMap<String, String>) -> Gateway {
        Gateway::serve(TcpListener::bind("127.0.0.1:0").unwrap(), dir, given)
    }

    fn serve(
        listener: TcpListener,
        dir: tempfile::TempDir,
        given: BTreeMap<String, String>,
    ) -> Gateway {
        let options = Options {
            broker: given.clone(),
            // The least there is: what is held back for want of memory is held back in tests.
            memory_limit_bytes: 256 << 20,
            sql_threads: 1,
            task_workers: 1,
            ..Options::default()
        };
        let mainstem = Mainstem::open(dir.path(), options).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let settings = Settings::read(&given).unwrap();
        let serving = mainstem_kafka::serve(mainstem.clone(), listener, settings, async {
            let _ = stopped.await;
        });
        runtime.spawn(serving);
        Gateway {
            address,
            mainstem,
            settings: given,
            runtime: Some(runtime),
            stop: Some(stop),
            dir: Some(dir),
        }
    }

    pub fn connect(&self) -> Connection {
        Connection::to(self.address)
    }

    /// Tells the gateway to stop.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
        let _ = self.mainstem.shutdown();
    }
}

pub struct Connection {
    pub stream: TcpStream,
    next: i32,
}

impl Connection {
    pub fn to(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        // Long enough for any answer; a test that waits for ever tells nothing.
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream, next: 1 }
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let id = self.next;
        self.next += 1;
        let mut frame = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(id)
            .with_client_id(Some(StrBytes::from_static_str("test")))
            .encode(&mut frame, R::header_version(version))
            .unwrap();
        request
            .encode(&mut frame, version)
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", R::KEY));
        self.send_frame(&frame);
        id
    }

    pub fn send_frame(&mut self, frame: &[u8]) {
        let mut bytes = BytesMut::new();
        bytes.put_i32(i32::try_from(frame.len()).unwrap());
        bytes.put_slice(frame);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next answer's bytes; none where the connection was ended.
    pub fn frame(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame).ok()?;
        Some(frame.into())
    }

    pub fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let mut frame = self.frame().expect("an answer");
        let header =
            ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
        let response = R::Response::decode(&mut frame, version)
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", R::KEY));
        assert!(
            frame.is_empty(),
            "{} v{version}: bytes are left over",
            R::KEY
        );
        (header.correlation_id, response)
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let id = self.send(version, request);
        let (answered, response) = self.receive::<R>(version);
        assert_eq!(answered, id);
        response
    }

    /// Produces one batch with acks=all.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Bytes,
    ) -> PartitionProduceResponse {
        self.call(9, &produce_request(topic, partition, batch, -1))
            .responses
            .remove(0)
            .partition_responses
            .remove(0)
    }
}

/// Asks until it is so: somebody else is about to bring it about.
pub fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(60), "it does not come");
        std::thread::yield_now();
    }
}

pub fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn produce_request(topic: &str, partition: i32, batch: Bytes, acks: i16) -> ProduceRequest {
    let partition = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(1000)
        .with_topic_data(vec![topic])
}

pub fn first(response: &ProduceResponse) -> &PartitionProduceResponse {
    &response.responses[0].partition_responses[0]
}

/// A batch of these values, without keys.
pub fn batch(values: &[&str]) -> Bytes {
    batch_with(
        Compression::None,
        &values
            .iter()
            .map(|value| (1_000, *value))
            .collect::<Vec<_>>(),
    )
}

/// A batch of these times and values.
pub fn batch_with(compression: Compression, records: &[(i64, &str)]) -> Bytes {
    let mut builder = BatchBuilder::new(compression, 1 << 20);
    for (timestamp_ms, value) in records {
        builder
            .append(*timestamp_ms, None, Some(value.as_bytes()), &[])
            .unwrap();
    }
    builder.build().unwrap().into_bytes()
}

/// A batch of an idempotent producer.
pub fn sequenced(values: &[&str], producer_id: i64, epoch: i16, sequence: i32) -> Bytes {
    of_producer(batch(values), producer_id, epoch, sequence, 0)
}

/// A batch of a transactional producer.
pub fn transactional(values: &[&str], producer_id: i64, epoch: i16, sequence: i32) -> Bytes {
    of_producer(batch(values), producer_id, epoch, sequence, 1 << 4)
}

fn of_producer(batch: Bytes, producer_id: i64, epoch: i16, sequence: i32, attributes: u8) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[22] |= attributes;
    bytes[43..51].copy_from_slice(&producer_id.to_be_bytes());
    bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}
