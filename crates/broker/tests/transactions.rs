//! Transactions as clients and administrators meet them, call by call.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::future::Future;

use common::TestBroker;
use mainstem_broker::{
    Broker, BrokerError, Caller, ConsumerHeartbeat, FetchRequest, GroupCommit, GroupMember,
    Isolation, JOIN_EPOCH, LEAVE_EPOCH, NewTopic, OffsetCommit, OffsetSpec, PlacedBatch,
    ProducerIdentity, TransactionCommit, TransactionFilter, TransactionState,
    TransactionalProducer,
};
use mainstem_engine::testing::poll_once;
use mainstem_record::{BatchBuilder, Compression};

const NOW_MS: i64 = 1_000;

struct Test {
    inner: TestBroker,
    now_ms: i64,
}

impl Test {
    fn new() -> Test {
        let mut inner = TestBroker::open(1);
        for name in ["t", "u"] {
            let topic = NewTopic::named(name).partitions(2);
            let create = |broker: Broker, caller: Caller| async move {
                broker.create_topic(&caller, topic, NOW_MS).await
            };
            inner.run(create).unwrap();
        }
        Test {
            inner,
            now_ms: NOW_MS,
        }
    }

    /// A call, while the engine and the coordinators move.
    fn run<F: Future>(&mut self, call: impl FnOnce(Broker, Caller) -> F) -> F::Output {
        let (broker, caller) = (self.inner.broker.clone(), self.inner.caller.clone());
        let mut call = Box::pin(call(broker.clone(), caller));
        for _ in 0..100_000 {
            if let std::task::Poll::Ready(output) = poll_once(call.as_mut()) {
                return output;
            }
            broker.move_coordinators(self.now_ms);
            self.inner.node.driver.step();
        }
        panic!("what is waited for has not come")
    }

    fn init(&mut self) -> TransactionalProducer {
        let now_ms = self.now_ms;
        let identity = self.run(|broker, caller| async move {
            broker
                .init_transactional(&caller, "id", 5_000, None, now_ms)
                .await
        });
        TransactionalProducer {
            id: "id".into(),
            identity: identity.unwrap(),
        }
    }

    fn produce(
        &mut self,
        identity: ProducerIdentity,
        partition: u32,
        adds: bool,
    ) -> Result<i64, BrokerError> {
        let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
        builder
            .producer(identity.id, identity.epoch, 0)
            .transactional();
        builder.append(1, None, Some(b"v"), &[]).unwrap();
        let placed = PlacedBatch {
            topic: self.inner.broker.topic(&self.inner.caller, "t").unwrap(),
            partition,
            batch: builder.build().unwrap(),
        };
        let mut outcomes = self.run(|broker, caller| async move {
            broker
                .produce_in_transaction(&caller, "id", adds, vec![placed], NOW_MS)
                .await
        })?;
        outcomes.remove(0).map(|produced| produced.base_offset)
    }

    fn end(
        &mut self,
        producer: &TransactionalProducer,
        commit: bool,
    ) -> Result<ProducerIdentity, BrokerError> {
        let producer = producer.clone();
        self.run(|broker, caller| async move {
            broker
                .end_transaction(&caller, &producer, commit, true, NOW_MS)
                .await
        })
    }

    fn broker(&self) -> (&Broker, &Caller) {
        (&self.inner.broker, &self.inner.caller)
    }
}

#[test]
fn a_partition_is_named_first_or_comes_with_its_batch() {
    let mut test = Test::new();
    let producer = test.init();
    let refused = test.produce(producer.identity, 0, false).unwrap_err();
    assert_eq!(refused.code(), "not_in_transaction");
    let wanted = vec![("t".to_owned(), 0), ("none".to_owned(), 0)];
    let (added, one) = (producer.clone(), wanted[..1].to_vec());
    let outcomes = test
        .run(|broker, caller| async move {
            broker
                .add_partitions(&caller, &added, &wanted, NOW_MS)
                .await
        })
        .unwrap();
    let codes: Vec<_> = outcomes
        .iter()
        .map(|one| one.as_ref().unwrap_err().code())
        .collect();
    assert_eq!(codes, ["not_attempted", "topic_not_found"]);
    let (added, named) = (producer.clone(), one.clone());
    test.run(|broker, caller| async move {
        broker.add_partitions(&caller, &added, &named, NOW_MS).await
    })
    .unwrap();
    let (broker, caller) = test.broker();
    let both = [one[0].clone(), ("t".to_owned(), 1)];
    let verified = broker.verify_partitions(caller, &producer, &both).unwrap();
    assert!(verified[0].is_ok());
    assert_eq!(
        verified[1].as_ref().unwrap_err().code(),
        "not_in_transaction"
    );
    assert_eq!(test.produce(producer.identity, 0, false).unwrap(), 0);
    assert!(test.produce(producer.identity, 1, false).is_err());
    assert_eq!(test.produce(producer.identity, 1, true).unwrap(), 0);
    test.end(&producer, true).unwrap();
    assert_eq!(
        test.produce(producer.identity, 1, true).unwrap_err().code(),
        "producer_fenced"
    );
    let unknown = ProducerIdentity { id: 99, epoch: 0 };
    assert_eq!(
        test.produce(unknown, 1, true).unwrap_err().code(),
        "invalid_producer_mapping"
    );
}

/// A commit that waits for what its producer has under way is judged by what its group is then.
#[test]
fn offsets_of_who_has_left_do_not_come_into_a_transaction_behind_another_call() {
    let mut test = Test::new();
    let producer = test.init();
    let beat = |epoch| ConsumerHeartbeat {
        group: "g".into(),
        member_id: "m".into(),
        member_epoch: epoch,
        rebalance_timeout_ms: Some(1_000),
        topics: Some(vec!["u".into()]),
        owned: Some(Vec::new()),
        ..ConsumerHeartbeat::default()
    };
    let joined = test.run(|broker, caller| async move {
        let call = broker.consumer_heartbeat(&caller, beat(JOIN_EPOCH), NOW_MS);
        call.await
    });
    let member = GroupMember {
        group: "g".into(),
        member_id: "m".into(),
        generation: joined.unwrap().member_epoch,
        ..GroupMember::default()
    };
    let commit = |offset| {
        let (broker, caller) = (test.inner.broker.clone(), test.inner.caller.clone());
        let commit = TransactionCommit {
            producer: producer.clone(),
            adds_group: true,
            commit: GroupCommit {
                knows_epochs: true,
                member: member.clone(),
                offsets: vec![OffsetCommit {
                    topic: "u".into(),
                    offset,
                    ..OffsetCommit::default()
                }],
            },
        };
        let mut call = Box::pin(async move {
            let call = broker.commit_transaction_offsets(&caller, commit, NOW_MS);
            call.await
        });
        assert!(poll_once(call.as_mut()).is_pending());
        call
    };
    let (first, second) = (commit(1), commit(2));
    let left = test.run(|broker, caller| async move {
        let call = broker.consumer_heartbeat(&caller, beat(LEAVE_EPOCH), NOW_MS);
        call.await
    });
    left.unwrap();
    test.run(|_, _| first).unwrap();
    let refused = test.run(|_, _| second).unwrap_err();
    assert_eq!(refused.code(), "unknown_member");
}

#[test]
fn what_is_open_shows_in_offsets_lists_and_descriptions() {
    let mut test = Test::new();
    let producer = test.init();
    test.produce(producer.identity, 0, true).unwrap();
    let commit = TransactionCommit {
        producer: producer.clone(),
        adds_group: true,
        commit: GroupCommit {
            knows_epochs: true,
            member: GroupMember {
                group: "g".into(),
                generation: -1,
                ..GroupMember::default()
            },
            offsets: vec![OffsetCommit {
                topic: "u".into(),
                partition: 1,
                offset: 7,
                ..OffsetCommit::default()
            }],
        },
    };
    test.run(|broker, caller| async move {
        broker
            .commit_transaction_offsets(&caller, commit, NOW_MS)
            .await
    })
    .unwrap();
    let (broker, caller) = test.broker();
    let latest = |spec| broker.resolve_offset(caller, "t", 0, spec).unwrap();
    assert_eq!(
        (latest(OffsetSpec::LastStable), latest(OffsetSpec::Latest)),
        (0, 1)
    );
    let unstable = || broker.unstable_offsets(caller, "g").unwrap();
    assert_eq!(unstable(), [("u".to_owned(), 1)]);
    assert_eq!(
        broker.fetch_offsets(caller, "g", "u", &[1]).unwrap(),
        [None]
    );
    let described = broker.describe_transaction(caller, "id").unwrap();
    assert_eq!(described.state, TransactionState::Ongoing);
    assert_eq!(
        (described.timeout_ms, described.started_ms),
        (5_000, Some(NOW_MS))
    );
    assert_eq!(described.groups, ["g"]);
    let partitions: Vec<_> = described
        .partitions
        .iter()
        .map(|(topic, partitions)| (&*topic.name, partitions.as_slice()))
        .collect();
    assert_eq!(partitions, [("t", &[0_u32][..])]);
    let list = |filter: &TransactionFilter, now_ms| {
        broker
            .list_transactions(caller, filter, now_ms)
            .unwrap()
            .len()
    };
    let mut filter = TransactionFilter {
        states: vec![TransactionState::Ongoing],
        longer_than_ms: Some(100),
        ..TransactionFilter::default()
    };
    assert_eq!(
        (list(&filter, NOW_MS + 100), list(&filter, NOW_MS + 101)),
        (0, 1)
    );
    filter.producer_ids = vec![99];
    assert_eq!(list(&filter, NOW_MS + 101), 0);
    let active = test
        .run(|broker, caller| async move { broker.active_producers(&caller, "t", 0).await })
        .unwrap();
    assert_eq!(
        (active[0].producer, active[0].transaction_start),
        (producer.identity, Some(0))
    );

    let next = test.end(&producer, true).unwrap();
    assert_eq!(next.epoch, producer.identity.epoch + 1);
    assert_eq!(test.end(&producer, true).unwrap(), next, "asked again");
    let (broker, caller) = test.broker();
    let committed = broker.fetch_offsets(caller, "g", "u", &[1]).unwrap();
    assert_eq!(committed[0].as_ref().unwrap().offset, 7);
    assert_eq!(broker.unstable_offsets(caller, "g").unwrap(), []);
    // Its group is there, as after any commit.
    assert!(broker.describe_group(caller, "g").is_ok());
    let request = FetchRequest {
        topic: "t".into(),
        partition: 0,
        offset: 0,
        max_bytes: 10_000,
        isolation: Isolation::ReadCommitted,
    };
    let fetched = broker.fetch(caller, &request).unwrap();
    assert_eq!((fetched.last_stable, fetched.aborted.len()), (2, 0));
    let missing = broker.describe_transaction(caller, "other").unwrap_err();
    assert_eq!(missing.code(), "transactional_id_not_found");
}

#[test]
fn time_ends_what_nobody_ends_and_forgets_who_is_gone() {
    let mut test = Test::new();
    let producer = test.init();
    test.produce(producer.identity, 0, true).unwrap();
    let state = |test: &Test| {
        let (broker, caller) = test.broker();
        broker
            .describe_transaction(caller, "id")
            .map(|one| one.state)
    };
    let pass = |test: &mut Test, ms| {
        test.now_ms += ms;
        for _ in 0..3 {
            test.inner.broker.move_coordinators(test.now_ms);
            test.inner.node.driver.settle();
        }
    };
    pass(&mut test, 4_999);
    assert_eq!(state(&test).unwrap(), TransactionState::Ongoing);
    pass(&mut test, 1);
    assert_eq!(state(&test).unwrap(), TransactionState::CompleteAbort);
    assert_eq!(
        test.end(&producer, true).unwrap_err().code(),
        "producer_fenced"
    );
    let (broker, caller) = test.broker();
    let bounds = broker.partition_bounds(caller, "t", 0).unwrap();
    assert_eq!((bounds.last_stable, bounds.high_watermark), (2, 2));
    pass(&mut test, 7 * 24 * 60 * 60 * 1_000);
    assert_eq!(
        state(&test).unwrap_err().code(),
        "transactional_id_not_found"
    );
    test.inner = test.inner.restart();
    assert!(state(&test).is_err());
}

#[test]
fn timeouts_and_ids_are_checked() {
    let mut test = Test::new();
    for (id, timeout_ms, code) in [
        ("", 1_000, "invalid_transactional_id"),
        ("id", 0, "invalid_transaction_timeout"),
        ("id", 900_001, "invalid_transaction_timeout"),
    ] {
        let refused = test.run(|broker, caller| async move {
            broker
                .init_transactional(&caller, id, timeout_ms, None, NOW_MS)
                .await
        });
        assert_eq!(refused.unwrap_err().code(), code);
    }
}

#[test]
fn a_transaction_that_could_not_end_is_refused_while_it_grows() {
    let mut test = Test::new();
    let topic = NewTopic::named("wide").partitions(2_000);
    test.run(|broker, caller| async move { broker.create_topic(&caller, topic, NOW_MS).await })
        .unwrap();
    let producer = test.init();
    let add = |test: &mut Test, partitions: std::ops::Range<u32>| {
        let partitions: Vec<_> = partitions.map(|index| ("wide".to_owned(), index)).collect();
        let producer = producer.clone();
        test.run(|broker, caller| async move {
            broker
                .add_partitions(&caller, &producer, &partitions, NOW_MS)
                .await
        })
    };
    // A frame takes 256 KiB here.
    assert!(add(&mut test, 0..1_000).is_ok());
    let refused = add(&mut test, 1_000..2_000).unwrap_err();
    assert_eq!(refused.code(), "transaction_too_large");
    assert!(add(&mut test, 1_000..1_600).is_ok());
    test.end(&producer, true).unwrap();
    let (broker, caller) = test.broker();
    for index in [0, 1_599] {
        let bounds = broker.partition_bounds(caller, "wide", index).unwrap();
        assert_eq!(bounds.high_watermark, 1, "its marker");
    }
}
