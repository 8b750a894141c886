//! Clients that stall are left, and what they held is free again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::pin::pin;

use mainstem::{Mainstem, Options};
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::client::Gateway;
use crate::settings::Settings;

/// Instead of half a minute.
const STALLED: Duration = Duration::from_millis(20);

/// Runs a test with a gateway that waits no longer than that for who stalls, or takes nothing.
fn serving(test: impl AsyncFnOnce(Arc<Gateway>)) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        memory_limit_bytes: 256 << 20,
        sql_threads: 1,
        task_workers: 1,
        ..Options::default()
    };
    let mainstem = Mainstem::open(dir.path(), options).unwrap();
    let (_stop, stopping) = watch::channel(false);
    let settings = Settings {
        max_idle: STALLED,
        ..Settings::default()
    };
    let mut gateway = Gateway::new(mainstem.clone(), settings, stopping);
    gateway.stalled = STALLED;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(Arc::new(gateway)));
    mainstem.shutdown().unwrap();
}

/// Both ends of a connection, and who is served at its end.
async fn connect(gateway: &Arc<Gateway>) -> (TcpStream, TcpStream, Arc<Client>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let served = Arc::new(Client::new(Arc::clone(gateway), address, peer));
    (client, stream, served)
}

fn has_stalled(ended: &Result<(), KafkaError>) -> bool {
    matches!(ended, Err(KafkaError::Stalled { silent_ms: 20 }))
}

#[test]
fn who_is_silent_in_the_middle_of_a_request_is_left_and_holds_nothing() {
    serving(async |gateway| {
        let all = gateway.requests.left();
        // In its length, behind it, in its first bytes, and in later ones.
        let much: Vec<u8> = [&[0, 16, 0, 0][..], &[0; 20_000]].concat();
        let silent = [&[0, 0][..], &[0, 0, 1, 0], &[0, 0, 1, 0, 0, 3], &much];
        for (sent, held) in silent.into_iter().zip([0, 256, 256, 65_536]) {
            let (mut client, stream, served) = connect(&gateway).await;
            client.write_all(sent).await.unwrap();
            let mut connection = pin!(run(stream, served));
            let mut least = all;
            let ended = loop {
                tokio::select! {
                    biased;
                    ended = &mut connection => break ended,
                    () = tokio::task::yield_now() => least = least.min(gateway.requests.left()),
                }
            };
            assert!(has_stalled(&ended), "{ended:?}");
            assert_eq!(all - least, held);
            assert_eq!(gateway.requests.left(), all);
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        }
    });
}

#[test]
fn who_does_not_take_its_answers_is_left() {
    // Metadata of everything, in version 12.
    let asks = b"\0\0\0\x0f\0\x03\0\x0c\0\0\0\0\xff\xff\0\0\0\0\0".repeat(100);
    serving(async |gateway| {
        let all = gateway.requests.left();
        let (mut client, stream, served) = connect(&gateway).await;
        SockRef::from(&client).set_recv_buffer_size(4_096).unwrap();
        SockRef::from(&stream).set_send_buffer_size(4_096).unwrap();
        client.write_all(&asks).await.unwrap();
        let ended = run(stream, served).await;
        assert!(has_stalled(&ended), "{ended:?}");
        assert_eq!(gateway.requests.left(), all);
        drop(client);
    });
}

#[test]
fn what_answers_hold_is_needed_back_while_others_lack_it() {
    serving(async |gateway| {
        assert!(!gateway.needs_back(true));
        let mut held = Vec::new();
        while let Some(room) = gateway.room_for_answer(usize::MAX) {
            held.push(room);
        }
        assert!(gateway.needs_back(true));
        assert!(!gateway.needs_back(false), "this would help nobody");
        held.pop();
        assert!(!gateway.needs_back(true));
    });
}
