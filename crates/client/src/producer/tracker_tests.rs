//! The tracker against a server played by hand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::ProducerRecord;
use crate::producer::gather::{Gather, Limits};
use crate::{ClientError, Delivery};

const LIMITS: Limits = Limits {
    compression: Compression::None,
    max_batch_bytes: 1_000,
    max_record_bytes: 10_000,
    max_request_bytes: 100_000,
    linger_ms: 0,
    delivery_timeout_ms: 1_000,
};
const LANE: Lane = Lane {
    topic: 0,
    partition: 0,
};

/// A producer of one-record batches for one partition.
struct Play {
    gather: Gather,
    tracker: Tracker,
    deliveries: Vec<Delivery>,
    requests: VecDeque<v1::ProduceRequest>,
}

impl Play {
    fn new() -> Play {
        let mut tracker = Tracker::new(&LIMITS);
        tracker.set_topics(vec!["t".into()]);
        tracker.identify(Identity { id: 1, epoch: 0 });
        Play {
            gather: Gather::new(LIMITS),
            tracker,
            deliveries: Vec::new(),
            requests: VecDeque::new(),
        }
    }

    /// Sends `count` batches of one record, each in a request of its own.
    fn send(&mut self, count: usize) {
        for _ in 0..count {
            let value = format!("{}", self.deliveries.len());
            let record = ProducerRecord::new("t").value(value);
            self.deliveries
                .push(self.gather.append(LANE, &record, 0, 10, 0).unwrap().0);
            self.pump();
        }
    }

    fn pump(&mut self) {
        loop {
            let taken = self.gather.take(0, |lane| self.tracker.allows(lane));
            for (lane, gathered) in taken {
                self.tracker.stamp(lane, gathered);
            }
            let Some(request) = self.tracker.request() else {
                return;
            };
            self.requests.push_back(request);
        }
    }

    /// The stamps of what is under way: producer id, sequence, value.
    fn stamps(&self) -> Vec<(i64, i32, String)> {
        self.requests
            .iter()
            .map(|request| {
                let batch = Batch::parse(request.batches[0].batch.clone()).unwrap();
                let record = batch.records().unwrap().next().unwrap().unwrap();
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                (
                    batch.header().producer_id,
                    batch.header().base_sequence,
                    value,
                )
            })
            .collect()
    }

    fn answer(&mut self, result: partition_result::Result) {
        let request = self.requests.pop_front().unwrap();
        let result = v1::PartitionResult {
            topic: "t".into(),
            partition: 0,
            result: Some(result),
        };
        let answer = v1::ProduceResponse {
            correlation_id: request.correlation_id,
            results: vec![result],
        };
        self.tracker.answer(answer).unwrap();
        self.pump();
    }

    fn accept(&mut self, base_offset: i64) {
        self.answer(partition_result::Result::Produced(v1::Produced {
            base_offset,
            ..v1::Produced::default()
        }));
    }

    fn refuse(&mut self, code: &str, retriable: bool) {
        let error = v1::Error {
            code: code.into(),
            retriable,
            ..v1::Error::default()
        };
        self.answer(partition_result::Result::Error(error));
    }

    fn lose_connection(&mut self) {
        self.requests.clear();
        self.tracker.disconnected();
        self.pump();
    }

    fn results(&self) -> Vec<Option<Result<i64, String>>> {
        self.deliveries
            .iter()
            .map(|delivery| {
                delivery.result().map(|result| {
                    result
                        .map(|delivered| delivered.offset)
                        .map_err(|error: ClientError| error.code().to_owned())
                })
            })
            .collect()
    }
}

fn stamps(stamps: &[(i64, i32, &str)]) -> Vec<(i64, i32, String)> {
    stamps
        .iter()
        .map(|(id, sequence, value)| (*id, *sequence, (*value).to_owned()))
        .collect()
}

#[test]
fn five_batches_are_under_way_and_the_sixth_waits() {
    let mut play = Play::new();
    play.send(6);
    assert_eq!(play.stamps().len(), 5);
    play.accept(100);
    assert_eq!(play.stamps().last().unwrap().1, 5);
    assert_eq!(play.results()[0], Some(Ok(100)));
}

#[test]
fn after_a_lost_connection_the_same_bytes_go_out_again_in_order() {
    let mut play = Play::new();
    play.send(3);
    let before = play
        .requests
        .iter()
        .map(|request| request.batches[0].batch.clone())
        .collect::<Vec<_>>();
    play.lose_connection();
    let after = play
        .requests
        .iter()
        .map(|request| request.batches[0].batch.clone())
        .collect::<Vec<_>>();
    assert_eq!(before, after);
    (7..10).for_each(|offset| play.accept(offset));
    assert_eq!(play.results(), [Some(Ok(7)), Some(Ok(8)), Some(Ok(9))]);
    assert!(play.tracker.is_empty());
}

#[test]
fn a_refusal_that_may_pass_sends_all_of_the_partition_again() {
    let mut play = Play::new();
    play.send(3);
    play.refuse("contended", true);
    assert!(play.tracker.take_troubled());
    play.send(1);
    assert_eq!(
        play.stamps().len(),
        2,
        "nothing new before the rest is answered"
    );
    play.refuse("out_of_order_sequence", false);
    play.refuse("out_of_order_sequence", false);
    assert_eq!(
        play.stamps(),
        stamps(&[(1, 0, "0"), (1, 1, "1"), (1, 2, "2"), (1, 3, "3")])
    );
    assert_eq!(play.results(), [None, None, None, None]);
}

#[test]
fn a_refusal_for_good_fails_its_batch_and_closes_the_hole() {
    let mut play = Play::new();
    play.send(3);
    play.refuse("record_too_large", false);
    play.refuse("out_of_order_sequence", false);
    play.refuse("out_of_order_sequence", false);
    assert_eq!(play.stamps(), stamps(&[(1, 0, "1"), (1, 1, "2")]));
    play.accept(0);
    play.accept(1);
    assert_eq!(
        play.results(),
        [
            Some(Err("record_too_large".into())),
            Some(Ok(0)),
            Some(Ok(1))
        ]
    );
    assert_eq!(
        play.tracker.take_first_error().unwrap().code(),
        "record_too_large"
    );
    assert_eq!(play.tracker.take_settled().len(), 3);
}

#[test]
fn what_may_be_stored_is_never_stamped_anew() {
    let mut play = Play::new();
    play.send(3);
    play.accept(0);
    // "1" may be stored: its answer is lost. "2" is refused for good afterwards.
    play.lose_connection();
    assert_eq!(play.stamps(), stamps(&[(1, 1, "1"), (1, 2, "2")]));
    play.refuse("contended", true);
    play.refuse("record_too_large", false);
    // Still under its old stamp.
    assert_eq!(play.stamps(), stamps(&[(1, 1, "1")]));
    play.accept(1);
    play.send(1);
    // The hole that "2" has left shows now, and only now a new identity is asked for.
    assert_eq!(play.stamps(), stamps(&[(1, 3, "3")]));
    play.refuse("out_of_order_sequence", false);
    assert!(play.stamps().is_empty() && play.tracker.needs_identity());
    play.tracker.identify(Identity { id: 2, epoch: 0 });
    play.pump();
    assert_eq!(play.stamps(), stamps(&[(2, 0, "3")]));
    play.accept(2);
    assert_eq!(
        play.results(),
        [
            Some(Ok(0)),
            Some(Ok(1)),
            Some(Err("record_too_large".into())),
            Some(Ok(2))
        ]
    );
}

#[test]
fn a_server_that_forgot_the_producer_is_told_what_is_certain_and_nothing_else() {
    let mut play = Play::new();
    play.send(2);
    play.accept(0);
    play.refuse("out_of_order_sequence", false);
    play.tracker.identify(Identity { id: 2, epoch: 0 });
    play.pump();
    assert_eq!(play.stamps(), stamps(&[(2, 0, "1")]));
    play.lose_connection();
    play.refuse("out_of_order_sequence", false);
    assert_eq!(
        play.results()[1],
        Some(Err("out_of_order_sequence".into())),
        "it may be stored: not sent again"
    );
}

#[test]
fn time_runs_out_for_what_was_sent_and_for_what_was_not() {
    let mut play = Play::new();
    play.send(2);
    play.lose_connection();
    play.send(1);
    play.tracker.expire(999);
    assert_eq!(play.results(), [None, None, None]);
    play.tracker.expire(1_000);
    let unknown = Some(Err("outcome_unknown".to_owned()));
    assert_eq!(play.results(), [unknown.clone(), unknown.clone(), unknown]);
    assert_eq!(play.tracker.take_settled().len(), 3);
    // Late answers are matched with what they answer.
    play.accept(0);
    play.accept(1);
    play.accept(2);
    play.send(1);
    assert_eq!(play.stamps(), stamps(&[(1, 3, "3")]));
    play.accept(3);
    assert_eq!(play.results()[3], Some(Ok(3)));
}

#[test]
fn answers_that_do_not_match_are_an_error() {
    let mut play = Play::new();
    play.send(1);
    let answer = v1::ProduceResponse {
        correlation_id: 7,
        results: Vec::new(),
    };
    assert_eq!(play.tracker.answer(answer).unwrap_err().code(), "protocol");
}

#[test]
fn sequences_begin_again_after_the_largest() {
    assert_eq!(after(i32::MAX), 0);
    assert_eq!(after(41), 42);
}
