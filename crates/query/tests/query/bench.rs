//! A node with topics, and questions to it.

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use futures::TryStreamExt;
use mainstem_broker::{
    Broker, BrokerSettings, Caller, NewTopic, PlacedBatch, ProduceBatch, TransactionalProducer,
};
use mainstem_engine::Submission;
use mainstem_engine::testing::{TestNode, poll_once};
use mainstem_query::{
    HandlerCatalog, HandlerTable, Notice, QueryEngine, QueryError, QueryOptions, QueryResult,
    ScanCounts,
};
use mainstem_record::{BatchBuilder, Compression};
use mainstem_runtime::keys::StateKey;
use mainstem_store::{Family, StoreOp};
use std::future::Future;
use std::sync::{Arc, Mutex};

pub const NOW_MS: i64 = 1_700_000_000_000;

/// What a query answered.
#[derive(Debug)]
pub struct Answer {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
    pub notices: Vec<Notice>,
    pub counts: ScanCounts,
}

#[derive(Default)]
pub struct Handlers(pub Mutex<Vec<HandlerTable>>);

impl HandlerCatalog for Handlers {
    fn handlers(&self, _: &Caller) -> Vec<HandlerTable> {
        self.0.lock().unwrap().clone()
    }
}

pub struct Bench {
    pub node: TestNode,
    pub broker: Broker,
    pub query: QueryEngine,
    pub handlers: Arc<Handlers>,
    pub caller: Caller,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(QueryOptions {
            memory_bytes: 64 << 20,
            threads: 2,
        })
    }

    pub fn with(options: QueryOptions) -> Bench {
        let node = TestNode::open(7).unwrap();
        let broker = Broker::open(node.engine.clone(), BrokerSettings::default()).unwrap();
        let handlers = Arc::new(Handlers::default());
        let query = QueryEngine::new(broker.clone(), options)
            .unwrap()
            .with_handler_tables(handlers.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_stack_size(mainstem_query::SQL_STACK_BYTES)
            .worker_threads(2)
            .build()
            .unwrap();
        Bench {
            node,
            broker,
            query,
            handlers,
            caller: Caller::anonymous(),
            runtime,
        }
    }

    /// Moves the engine until the future is there.
    pub fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let _guard = self.runtime.enter();
        self.node.driver.block_on(future)
    }

    pub fn topic(&mut self, name: &str, partitions: u32, schema: Option<&str>) {
        let new = NewTopic {
            name: name.to_owned(),
            partitions: Some(partitions),
            configs: Default::default(),
            schema: schema.map(|text| text.parse().unwrap()),
        };
        let (broker, caller) = (self.broker.clone(), self.caller.clone());
        self.drive(async move { broker.create_topic(&caller, new, NOW_MS).await })
            .unwrap();
    }

    /// One batch of records: time, key, value.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: u32,
        records: &[(i64, Option<&str>, Option<&str>)],
    ) {
        self.produce_compressed(topic, partition, Compression::None, records);
    }

    pub fn produce_compressed(
        &mut self,
        topic: &str,
        partition: u32,
        compression: Compression,
        records: &[(i64, Option<&str>, Option<&str>)],
    ) {
        let mut builder = BatchBuilder::new(compression, 1 << 20);
        for (time, key, value) in records {
            builder
                .append(
                    *time,
                    key.map(str::as_bytes),
                    value.map(str::as_bytes),
                    &[("source", Some(b"test"))],
                )
                .unwrap();
        }
        let batch = ProduceBatch {
            topic: topic.into(),
            partition,
            batch: builder.build().unwrap(),
        };
        let (broker, caller) = (self.broker.clone(), self.caller.clone());
        let outcomes = self
            .drive(async move { broker.produce(&caller, vec![batch], NOW_MS).await })
            .unwrap();
        for outcome in outcomes {
            outcome.unwrap();
        }
    }

    /// A transaction of one producer, with a record for each value; it is committed, aborted, or stays open.
    pub fn transaction(&mut self, id: &str, topic: &str, values: &[&str], commit: Option<bool>) {
        let (broker, caller, id) = (self.broker.clone(), self.caller.clone(), id.to_owned());
        let topic = broker.topic(&caller, topic).unwrap();
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let mut call = Box::pin(async move {
            let identity = broker
                .init_transactional(&caller, &id, 60_000, None, NOW_MS)
                .await
                .unwrap();
            let mut builder = BatchBuilder::new(Compression::None, 1 << 20);
            builder
                .producer(identity.id, identity.epoch, 0)
                .transactional();
            for value in &values {
                builder
                    .append(1, None, Some(value.as_bytes()), &[])
                    .unwrap();
            }
            let placed = PlacedBatch {
                topic,
                partition: 0,
                batch: builder.build().unwrap(),
            };
            let outcomes = broker
                .produce_in_transaction(&caller, &id, true, vec![placed], NOW_MS)
                .await
                .unwrap();
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            if let Some(commit) = commit {
                let producer = TransactionalProducer { id, identity };
                broker
                    .end_transaction(&caller, &producer, commit, true, NOW_MS)
                    .await
                    .unwrap();
            }
        });
        while poll_once(call.as_mut()).is_pending() {
            self.broker.move_coordinators(NOW_MS);
            self.node.driver.step();
        }
    }

    /// `batches` batches of `size` records `{"n": i, "name": "name-i"}`, i counting on, at time i.
    pub fn numbers(&mut self, topic: &str, partition: u32, batches: i64, size: i64) {
        for batch in 0..batches {
            let values: Vec<(i64, String)> = (batch * size..(batch + 1) * size)
                .map(|n| (n, format!(r#"{{"n": {n}, "name": "name-{n}"}}"#)))
                .collect();
            let records: Vec<_> = values
                .iter()
                .map(|(n, value)| (*n, None, Some(value.as_str())))
                .collect();
            self.produce(topic, partition, &records);
        }
    }

    /// Writes entries of a handler's state as a step would: partition, table, key, value.
    pub fn put_state(&mut self, handler: u64, entries: &[(u32, &str, &str, &str)]) {
        let store_ops = entries
            .iter()
            .map(|(partition, table, key, value)| {
                let key = StateKey {
                    shard: *partition as u16,
                    handler,
                    partition: *partition,
                    table,
                    key: key.as_bytes(),
                };
                StoreOp::put(
                    Family::State,
                    key.encode(),
                    Bytes::copy_from_slice(value.as_bytes()),
                )
            })
            .collect();
        self.submit(Submission {
            store_ops,
            ..Submission::default()
        });
    }

    pub fn submit(&mut self, submission: Submission) {
        let engine = self.node.engine.clone();
        self.drive(async move {
            let permit = engine
                .reserve_with_store(submission.size_bytes(), submission.store_bytes())
                .await?;
            engine.submit(submission, permit).await
        })
        .unwrap();
    }

    pub fn handler(&mut self, name: &str, id: u64, tasks: u32) {
        self.handlers.0.lock().unwrap().push(HandlerTable {
            name: name.into(),
            id,
            tasks: (0..tasks)
                .map(|partition| (partition, partition as u16))
                .collect(),
            schema: None,
        });
    }

    pub fn start(&mut self, sql: &str) -> Result<QueryResult, QueryError> {
        let (query, caller, sql) = (self.query.clone(), self.caller.clone(), sql.to_owned());
        self.drive(async move { query.sql(&caller, &sql).await })
    }

    pub fn finish(&self, result: QueryResult) -> Result<Answer, QueryError> {
        let columns = result
            .schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        let batches: Vec<RecordBatch> = self.runtime.block_on(result.stream.try_collect())?;
        let rows = batches.iter().flat_map(rows).collect();
        Ok(Answer {
            columns,
            rows,
            notices: result.notices.list(),
            counts: result.notices.counts(),
        })
    }

    pub fn ask(&mut self, sql: &str) -> Answer {
        self.try_ask(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error} ({})", error.hint()))
    }

    pub fn try_ask(&mut self, sql: &str) -> Result<Answer, QueryError> {
        let result = self.start(sql)?;
        self.finish(result)
    }

    /// The one value of a query of one row and column.
    pub fn value(&mut self, sql: &str) -> String {
        let answer = self.ask(sql);
        assert_eq!(
            (answer.rows.len(), answer.columns.len()),
            (1, 1),
            "{sql}: {answer:?}"
        );
        answer.rows[0][0].clone()
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

pub fn rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            columns
                .iter()
                .map(|column| column.value(row).to_string())
                .collect()
        })
        .collect()
}
