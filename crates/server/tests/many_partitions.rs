//! 10,000 partitions on one node: created, written to, found after kill -9 and after a clean stop, within the memory and the
//! open files that it is given.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use mainstem_proto::v1::produce_client::ProduceClient;
use mainstem_proto::v1::{PartitionBatch, ProduceRequest, partition_result};
use std::path::Path;
use support::Server;
use support::grpc::{batch, block_on};

const PARTITIONS: u32 = 10_000;
const PARTITIONS_AT_ONCE: u32 = 500;
const MAX_OPEN_FILES: usize = 300;
/// Connections, the journal, and whatever else a process has open.
const OTHER_FILES: usize = 100;
const MEMORY_KIB: u64 = 2 << 20;

fn start(data_dir: &Path) -> Server {
    let most = MAX_OPEN_FILES.to_string();
    let any_port = "127.0.0.1:0";
    Server::start_with(
        data_dir,
        &[
            "--listen-grpc",
            any_port,
            "--listen-http",
            any_port,
            "--listen-kafka",
            any_port,
            "--max-open-files",
            &most,
        ],
    )
}

/// One record to every partition.
fn produce(server: &Server, value: &[u8]) {
    let address = format!("http://{}", server.address("grpc"));
    block_on(async {
        let mut client = ProduceClient::connect(address).await.unwrap();
        for from in (0..PARTITIONS).step_by(PARTITIONS_AT_ONCE as usize) {
            let batches = (from..from + PARTITIONS_AT_ONCE).map(|partition| PartitionBatch {
                topic: "many".into(),
                partition,
                batch: batch(value).into(),
            });
            let request = ProduceRequest {
                correlation_id: u64::from(from),
                batches: batches.collect(),
            };
            let answer = client.produce(request).await.unwrap().into_inner();
            assert_eq!(answer.results.len(), PARTITIONS_AT_ONCE as usize);
            for result in answer.results {
                let result = result.result.unwrap();
                assert!(
                    matches!(result, partition_result::Result::Produced(_)),
                    "{result:?}"
                );
            }
        }
    });
}

/// So many records of each partition are there.
fn check(server: &Server, records: u32) {
    let statement = "SELECT count(*) AS records, count(DISTINCT _partition) AS partitions, \
                     max(_offset) AS last FROM many";
    let found = server.run(&["sql", statement]);
    let wanted = serde_json::json!({
        "records": records * PARTITIONS, "partitions": PARTITIONS, "last": records - 1
    });
    assert_eq!(found, [wanted]);
}

/// It keeps to what it was given, at this moment and at its worst.
fn keeps_to_its_limits(server: &Server) {
    let process = format!("/proc/{}", server.child.id());
    let files = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
    assert!(
        files <= MAX_OPEN_FILES + OTHER_FILES,
        "{files} files are open"
    );
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < MEMORY_KIB, "it took {peak_kib} KiB");
}

#[test]
fn ten_thousand_partitions_are_served_within_the_limits() {
    let home = tempfile::tempdir().unwrap();
    let data_dir = home.path().join("data");
    let mut server = start(&data_dir);
    let partitions = PARTITIONS.to_string();
    server.run(&["topic", "create", "many", "--partitions", &partitions]);
    produce(&server, &[b'a'; 1024]);
    check(&server, 1);
    keeps_to_its_limits(&server);
    server.kill();

    let mut server = start(&data_dir);
    check(&server, 1);
    produce(&server, &[b'b'; 1024]);
    keeps_to_its_limits(&server);
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());

    // Nothing of it is in memory now: every record is read from a file of its own.
    let server = start(&data_dir);
    check(&server, 2);
    keeps_to_its_limits(&server);
}
