//! Transactions as the engine sees them: batches that name one, and an end that closes it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use mainstem_engine::testing::{Crash, TestNode, small_options};
use mainstem_engine::{
    Append, AppendError, Committed, EngineError, EngineOptions, Marker, Submission, Ticket,
    Transaction, TransactionEnd,
};
use mainstem_log::{Bounds, LogOp, PartitionId, TopicId};
use mainstem_record::{Batch, BatchBuilder, Compression};
use mainstem_store::{Family, StoreOp};

const KEY: &[u8] = b"\x00\x01key";

fn partition(index: u32) -> PartitionId {
    PartitionId::new(TopicId(7), index)
}

fn node(reference_bytes: usize) -> TestNode {
    let options = EngineOptions {
        reference_bytes,
        ..small_options()
    };
    let mut node = TestNode::open_with(1, options).unwrap();
    let create = |index| {
        let partition = partition(index);
        (1, LogOp::CreatePartition { partition })
    };
    let created = node.engine.submit_in_turn(Submission {
        log_ops: (0..2).map(create).collect(),
        ..Submission::default()
    });
    node.driver.block_on(created).unwrap();
    node
}

fn batch(epoch: i16, sequence: i32) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
    builder.producer(5, epoch, sequence).transactional();
    builder.append(1, None, Some(&[7; 300]), &[]).unwrap();
    builder.build().unwrap()
}

fn write(
    node: &TestNode,
    index: u32,
    batch: Batch,
    transaction: Option<&Transaction>,
) -> Ticket<Committed> {
    node.engine.submit_in_turn(Submission {
        appends: vec![Append {
            partition: partition(index),
            batch,
        }],
        transaction: transaction.cloned(),
        ..Submission::default()
    })
}

fn end(node: &TestNode, transaction: &Transaction, marker: Marker) -> Ticket<Committed> {
    node.engine.submit_in_turn(Submission {
        transaction_end: Some(TransactionEnd {
            transaction: transaction.clone(),
            marker,
            marker_epoch: transaction.producer_epoch() + 1,
            // One that is not there has nothing to end.
            partitions: vec![partition(0), partition(1), partition(9)],
            now_ms: 1,
        }),
        store_ops: vec![StoreOp::put(Family::State, KEY, &b"ended"[..])],
        all_or_nothing: true,
        ..Submission::default()
    })
}

fn outcome(node: &mut TestNode, ticket: Ticket<Committed>) -> Result<i64, AppendError> {
    let mut committed = node.driver.block_on(ticket).unwrap();
    committed.appends.remove(0).map(|one| one.base_offset)
}

fn bounds(node: &TestNode, index: u32) -> (i64, i64) {
    let Bounds {
        high_watermark,
        last_stable,
        ..
    } = node.engine.log().bounds(partition(index)).unwrap();
    (last_stable, high_watermark)
}

#[test]
fn nothing_of_a_transaction_comes_behind_its_end() {
    for reference_bytes in [1, usize::MAX] {
        let mut node = node(reference_bytes);
        let transaction = Transaction::new(5, 0);
        // All under way at the same time: the end waits for what goes to a segment first.
        let first = write(&node, 0, batch(0, 0), Some(&transaction));
        let ended = end(&node, &transaction, Marker::Commit);
        let late = write(&node, 1, batch(0, 0), Some(&transaction));
        let retry = write(&node, 0, batch(0, 0), Some(&transaction));
        assert_eq!(outcome(&mut node, first), Ok(0));
        node.driver.block_on(ended).unwrap();
        let refused = outcome(&mut node, late).unwrap_err();
        assert!(
            matches!(
                refused,
                AppendError::InvalidProducerEpoch { current: 1, .. }
            ),
            "{refused}"
        );
        assert!(outcome(&mut node, retry).is_err());
        assert_eq!(bounds(&node, 0), (2, 2));
        assert_eq!(bounds(&node, 1), (1, 1), "a marker alone");
        let kept = node.engine.store().get(Family::State, KEY).unwrap();
        assert_eq!(kept.as_deref(), Some(&b"ended"[..]));
    }
}

#[test]
fn a_transactional_batch_needs_an_open_transaction_of_its_producer_and_epoch() {
    let mut node = node(usize::MAX);
    let nobodys = write(&node, 0, batch(0, 0), None);
    let refused = outcome(&mut node, nobodys);
    assert!(
        matches!(refused, Err(AppendError::NoTransaction { .. })),
        "{refused:?}"
    );
    let other = Transaction::new(5, 3);
    let anothers = write(&node, 0, batch(0, 0), Some(&other));
    assert!(outcome(&mut node, anothers).is_err());
    let marker = Marker::Abort.batch(5, 0, 0).unwrap();
    let marker = write(&node, 0, marker, Some(&Transaction::new(5, 0)));
    assert_eq!(outcome(&mut node, marker), Err(AppendError::ControlBatch));
    // An end twice is a fault of who asks.
    let transaction = Transaction::new(5, 0);
    let first = end(&node, &transaction, Marker::Abort);
    node.driver.block_on(first).unwrap();
    let second = end(&node, &transaction, Marker::Abort);
    let second = node.driver.block_on(second);
    assert!(matches!(second, Err(EngineError::Invalid(_))), "{second:?}");
    assert_eq!(bounds(&node, 0), (1, 1));
}

#[test]
fn what_is_no_part_of_an_open_transaction_waits_for_its_end() {
    let plain = |epoch: i16, sequence: i32| {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        builder.producer(5, epoch, sequence);
        builder.append(1, None, Some(b"x"), &[]).unwrap();
        builder.build().unwrap()
    };
    for reference_bytes in [1, usize::MAX] {
        let mut node = node(reference_bytes);
        let transaction = Transaction::new(5, 0);
        let within = write(&node, 0, batch(0, 0), Some(&transaction));
        assert_eq!(outcome(&mut node, within), Ok(0));
        let refused = Err(AppendError::OpenTransaction { producer_id: 5 });
        let aside = write(&node, 0, plain(0, 1), None);
        assert_eq!(outcome(&mut node, aside), refused);
        // Where its transaction is not, it writes as any other.
        let elsewhere = write(&node, 1, plain(0, 0), None);
        assert_eq!(outcome(&mut node, elsewhere), Ok(0));
        // Neither a newer epoch nor a restart makes it another's.
        let mut node = node.crash(Crash::Power).unwrap();
        for batch in [plain(0, 1), plain(1, 0)] {
            let aside = write(&node, 0, batch, None);
            assert_eq!(outcome(&mut node, aside), refused);
        }
        let transaction = Transaction::new(5, 0);
        let ended = end(&node, &transaction, Marker::Commit);
        node.driver.block_on(ended).unwrap();
        let after = write(&node, 0, plain(1, 0), None);
        assert_eq!(outcome(&mut node, after), Ok(2));
    }
}

#[test]
fn what_is_open_and_what_was_aborted_is_known_after_a_restart() {
    for checkpoint in [false, true] {
        let mut node = node(usize::MAX);
        let (first, second) = (Transaction::new(5, 0), Transaction::new(5, 1));
        for (transaction, epoch) in [(&first, 0), (&second, 1)] {
            let written = write(&node, 0, batch(epoch, 0), Some(transaction));
            outcome(&mut node, written).unwrap();
            if epoch == 0 {
                let ended = end(&node, transaction, Marker::Abort);
                node.driver.block_on(ended).unwrap();
            }
        }
        assert_eq!(bounds(&node, 0), (2, 3));
        // A clean stop takes a checkpoint, a crash leaves all to replay.
        let mut node = match checkpoint {
            true => node.restart().unwrap(),
            false => node.crash(Crash::Power).unwrap(),
        };
        assert_eq!(bounds(&node, 0), (2, 3));
        let open = node.engine.log().open_transactions();
        assert_eq!(open.len(), 1);
        assert_eq!((open[0].0, open[0].1.producer_epoch), (partition(0), 1));
        let stable = node.engine.log().read_stable(partition(0), 0, 10_000, None);
        assert_eq!(stable.unwrap().aborted.len(), 1);
        let delivered = node
            .engine
            .log()
            .read_committed(partition(0), 0, 10_000, None);
        let delivered = delivered.unwrap();
        assert!(delivered.batches.is_empty());
        assert_eq!(delivered.next_offset, 2);
        // Whoever coordinates goes on with it, and is the only one who knows that it is open.
        let again = Transaction::new(5, 1);
        let written = write(&node, 0, batch(1, 1), Some(&again));
        assert_eq!(outcome(&mut node, written), Ok(3));
        let ended = end(&node, &again, Marker::Commit);
        node.driver.block_on(ended).unwrap();
        assert_eq!(bounds(&node, 0), (5, 5));
        let known = node.engine.submit_in_turn(Submission {
            producers_of: Some(partition(0)),
            ..Submission::default()
        });
        let known = node.driver.block_on(known).unwrap().producers;
        assert_eq!(known.len(), 1);
        let fenced = (known[0].producer_epoch, known[0].last_sequence);
        assert_eq!(fenced, (2, None), "the marker's epoch");
    }
}
