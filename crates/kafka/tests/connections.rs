//! Where connections come from and lead to, and how long they may be silent.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::io::Read;
use std::net::{TcpListener, ToSocketAddrs};

use common::{Connection, Gateway, text};
use kafka_protocol::messages::*;

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let gateway = Gateway::start_with(&[("connections.max.idle.ms", "50")]);
    let mut idle = gateway.connect();
    // The end, and not the time that the client itself waits.
    assert_eq!(idle.stream.read(&mut [0; 4]).unwrap(), 0);
}

/// The addresses that a client on this connection is told of, by each request that tells any.
fn told(client: &mut Connection) -> Vec<(String, i32)> {
    let metadata = client.call(12, &MetadataRequest::default());
    let broker = &metadata.brokers[0];
    let mut told = vec![(broker.host.to_string(), broker.port)];
    let described = client.call(2, &DescribeClusterRequest::default());
    let broker = &described.brokers[0];
    told.push((broker.host.to_string(), broker.port));
    let old = client.call(3, &FindCoordinatorRequest::default().with_key(text("g")));
    told.push((old.host.to_string(), old.port));
    let keys = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    let new = client.call(6, &keys).coordinators.remove(0);
    told.push((new.host.to_string(), new.port));
    told
}

/// Listens there; where the machine has no such address, says so.
fn listen(address: &str) -> Option<TcpListener> {
    match TcpListener::bind(address) {
        Ok(listener) => Some(listener),
        Err(error) => {
            eprintln!("skipped: {address} cannot be listened at, as without IPv6: {error}");
            None
        }
    }
}

/// Clients of this address are told it, and reach the server there.
fn is_told_and_reached(host: &str, port: u16) {
    let address = (host, port).to_socket_addrs().unwrap().next().unwrap();
    let mut client = Connection::to(address);
    for (told_host, told_port) in told(&mut client) {
        assert_eq!((&*told_host, told_port), (host, i32::from(port)));
        let told_port = u16::try_from(told_port).unwrap();
        let mut again = (told_host, told_port).to_socket_addrs().unwrap();
        let mut client = Connection::to(again.next().unwrap());
        let versions = client.call(0, &ApiVersionsRequest::default());
        assert_eq!(versions.error_code, 0);
    }
}

#[test]
fn who_comes_by_ipv6_is_told_an_address_of_it() {
    let Some(listener) = listen("[::1]:0") else {
        return;
    };
    let gateway = Gateway::start_at(listener);
    is_told_and_reached("::1", gateway.address.port());
}

#[test]
fn who_listens_on_both_tells_each_client_the_address_it_came_to() {
    let Some(listener) = listen("[::]:0") else {
        return;
    };
    let gateway = Gateway::start_at(listener);
    let port = gateway.address.port();
    is_told_and_reached("127.0.0.1", port);
    if listen("[::1]:0").is_some() {
        is_told_and_reached("::1", port);
    }
}
