//! What a handler is given of transactions: records of committed ones, and it passes over the rest.

use std::sync::Arc;

use mainstem_broker::{PlacedBatch, TransactionalProducer};
use mainstem_engine::testing::{Crash, poll_once};
use mainstem_record::{BatchBuilder, Compression};
use mainstem_runtime::{Code, Deployment, NativeHandler};

use crate::support::{Bed, caller, obey};

fn deployment() -> Deployment {
    let module = Arc::new(NativeHandler::new(obey));
    let code = Code::Native {
        version: "1".into(),
        module,
    };
    Deployment::new("counter", code).input("in").output("out")
}

/// One order to count in a transaction, which ends, or stays open; the id of the transaction is the record's key.
fn transaction(bed: &mut Bed, id: &str, commit: Option<bool>) {
    let (broker, caller, now_ms) = (bed.broker.clone(), caller(), bed.now_ms);
    let (topic, id) = (broker.topic(&caller, "in").unwrap(), id.to_owned());
    let mover = broker.clone();
    let mut call = Box::pin(async move {
        let init = broker.init_transactional(&caller, &id, 60_000, None, now_ms);
        let identity = init.await.unwrap();
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        builder
            .producer(identity.id, identity.epoch, 0)
            .transactional();
        builder
            .append(1, Some(id.as_bytes()), Some(b"count"), &[])
            .unwrap();
        let placed = PlacedBatch {
            topic,
            partition: 0,
            batch: builder.build().unwrap(),
        };
        let produce = broker.produce_in_transaction(&caller, &id, true, vec![placed], now_ms);
        produce.await.unwrap().remove(0).unwrap();
        if let Some(commit) = commit {
            let producer = TransactionalProducer { id, identity };
            let end = broker.end_transaction(&caller, &producer, commit, true, now_ms);
            end.await.unwrap();
        }
    });
    while poll_once(call.as_mut()).is_pending() {
        mover.move_coordinators(now_ms);
        bed.node.driver.step();
    }
}

#[test]
fn a_handler_is_given_committed_records_and_lags_behind_no_marker() {
    let mut bed = Bed::new(1);
    bed.topic("in", 1);
    bed.topic("out", 1);
    bed.produce("in", &[("plain", "count")]);
    transaction(&mut bed, "aborted", Some(false));
    transaction(&mut bed, "committed", Some(true));
    transaction(&mut bed, "aborted-last", Some(false));
    bed.deploy(deployment());
    bed.settle();
    let counted =
        |bed: &Bed| -> Vec<String> { bed.values("out").into_iter().map(|(key, _)| key).collect() };
    assert_eq!(counted(&bed), ["plain", "committed"]);
    // The last thing of its input is a marker.
    assert_eq!(bed.status("counter").lag(), 0);
    // It waits for what is open, also over a restart.
    transaction(&mut bed, "open", None);
    bed.produce("in", &[("behind", "count")]);
    bed.settle();
    assert_eq!(counted(&bed), ["plain", "committed"]);
    assert_eq!(bed.status("counter").lag(), 2);
    bed = bed.crash(Crash::Power).unwrap();
    bed.deploy(deployment());
    bed.settle();
    assert_eq!(counted(&bed), ["plain", "committed"]);
    // The next life of the producer aborts it, and does nothing more.
    transaction(&mut bed, "open", Some(true));
    bed.settle();
    assert_eq!(counted(&bed), ["plain", "committed", "behind", "open"]);
    assert_eq!(bed.status("counter").lag(), 0);
}
