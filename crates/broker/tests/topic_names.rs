//! Names of topics that differ in '.' and '_' alone.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::TestBroker;
use mainstem_broker::{BrokerError, Caller, NewTopic};

fn create(test: &mut TestBroker, name: &str) -> Result<(), BrokerError> {
    let topic = NewTopic::named(name);
    let valid = test.broker.validate_topic(&test.caller, &topic);
    let created =
        test.run(|broker, caller| async move { broker.create_topic(&caller, topic, 7).await });
    // What is said before says what comes.
    let words = |error: &BrokerError| error.to_string();
    assert_eq!(
        valid.err().as_ref().map(words),
        created.as_ref().err().map(words)
    );
    created.map(drop)
}

fn code<T>(outcome: Result<T, BrokerError>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |_| "ok")
}

#[test]
fn of_names_that_collide_the_first_is_taken() {
    let mut test = TestBroker::open(51);
    create(&mut test, "a.b").unwrap();
    let error = create(&mut test, "a_b").unwrap_err();
    assert_eq!(error.code(), "topic_collides");
    assert_eq!(
        error.to_string(),
        "Topic 'a_b' collides with existing topic: a.b"
    );
    assert_eq!(code(create(&mut test, "a.b")), "topic_exists");
    assert_eq!(code(create(&mut test, "a-b")), "ok");
    assert_eq!(code(create(&mut test, "a_bc")), "ok");
    // Also after a restart.
    test = test.restart();
    assert_eq!(code(create(&mut test, "a_b")), "topic_collides");
    test.run(|broker, caller| async move { broker.delete_topic(&caller, "a.b").await })
        .unwrap();
    assert_eq!(code(create(&mut test, "a_b")), "ok");
    assert_eq!(code(create(&mut test, "a.b")), "topic_collides");
}

#[test]
fn internal_topics_have_their_names_to_themselves() {
    let mut test = TestBroker::open(52);
    for name in ["__consumer.offsets", "..transaction.state"] {
        assert_eq!(code(create(&mut test, name)), "topic_collides", "{name}");
    }
}

#[test]
fn another_tenant_has_its_own_names() {
    let mut test = TestBroker::open(53);
    create(&mut test, "a.b").unwrap();
    test.caller = Caller::new("other", "somebody").unwrap();
    create(&mut test, "a_b").unwrap();
}
