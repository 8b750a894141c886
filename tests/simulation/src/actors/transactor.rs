//! A transactional producer: records on several partitions and an offset of a group in one transaction, under both
//! protocols. Another process takes its id over now and then, batches race with the end, transactions time out, and some
//! stay open over a crash.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use mainstem_broker::{
    BrokerError, GroupCommit, GroupMember, OffsetCommit, PlacedBatch, Produced, ProducerIdentity,
    TransactionCommit, TransactionalProducer,
};
use mainstem_record::{Batch, BatchBuilder, Compression};
use rand::Rng;
use rand::rngs::SmallRng;

use super::{EVENTS, INPUT, LEDGER, filler};
use crate::coverage::met;
use crate::note;
use crate::views::record_hash;
use crate::world::{After, Client, Fate, Transaction};

/// A transaction was committed.
pub const COMMITTED: &str = "transactions committed";
/// A transaction was aborted by its producer.
pub const ABORTED: &str = "transactions aborted";
/// Somebody else has the id, or the transaction was too old.
pub const FENCED: &str = "transactional producers fenced";
/// A producer went on after a crash with the transaction that it had open.
pub const OPEN_OVER_CRASH: &str = "transactions open over a crash, and gone on with";
/// A crash came while a commit was under way.
pub const CRASHED_COMMIT: &str = "crash while a commit is under way";
/// A batch came too late for its transaction.
pub const TOO_LATE: &str = "batches behind the end of their transaction refused";

/// How many there are.
pub const TRANSACTORS: usize = 3;
const TIMEOUT_MS: i64 = 2_500;
/// Where they write, with the partitions.
const WRITTEN: [(&str, u32); 2] = [(LEDGER, 3), (EVENTS, 3)];

type Answer = Result<Vec<Result<Produced, BrokerError>>, BrokerError>;

/// The group whose offset goes with a producer's transactions.
pub fn group(me: usize) -> String {
    format!("transactor-{me}")
}

/// Makes transactions until the run ends.
pub async fn run(mut client: Client, me: usize) {
    {
        let mut world = client.world.borrow_mut();
        let one = &mut world.transactors[me];
        if one.committing {
            met(CRASHED_COMMIT);
        }
        // A call under way is lost, and with it what its producer knew.
        if std::mem::take(&mut one.busy) || client.rng.random_bool(0.3) {
            one.begin_anew();
        } else if one.open.is_some() {
            met(OPEN_OVER_CRASH);
        }
        one.committing = false;
    }
    loop {
        if client.is_stopping() && client.world.borrow().transactors[me].open.is_none() {
            client.world.borrow_mut().transactors_finished += 1;
            return;
        }
        client.operation();
        client.world.borrow_mut().transactors[me].busy = true;
        let outcome = act(&mut client, me).await;
        if !settled(&client, me, outcome) {
            return;
        }
        client.clock.sleep(client.rng.random_range(0..60)).await;
    }
}

/// Takes an outcome in. False where the node is of no use: whatever was under way has an unknown end.
fn settled(client: &Client, me: usize, outcome: Result<(), BrokerError>) -> bool {
    let mut world = client.world.borrow_mut();
    world.transactors[me].busy = false;
    world.transactors[me].committing = false;
    let Err(error) = outcome else {
        return true;
    };
    world.transactors[me].begin_anew();
    match error {
        BrokerError::ProducerFenced { .. }
        | BrokerError::InvalidProducerMapping { .. }
        | BrokerError::InvalidTransactionState { .. } => {
            met(FENCED);
            true
        }
        error => world.after(&error) != After::Over,
    }
}

async fn act(client: &mut Client, me: usize) -> Result<(), BrokerError> {
    let identity = client.world.borrow().transactors[me].identity;
    let Some(identity) = identity else {
        return init(client, me).await;
    };
    if !client.is_stopping() && client.rng.random_bool(0.03) {
        // Another process takes over; this one does not know.
        init(client, me).await?;
        let mut world = client.world.borrow_mut();
        let one = &mut world.transactors[me];
        one.identity = Some(identity);
        return Ok(());
    }
    let number = begun(client, me);
    let (is_empty, has_offset) = {
        let world = client.world.borrow();
        let transaction = &world.transactions[&number];
        (transaction.written.is_empty(), transaction.offset)
    };
    let producer = TransactionalProducer {
        id: format!("id-{me}"),
        identity,
    };
    match client.rng.random_range(0..10) {
        _ if client.is_stopping() => {
            end(client, me, number, producer, is_empty && !has_offset).await
        }
        0..2 if !is_empty || has_offset => end(client, me, number, producer, false).await,
        2 if !has_offset => offset(client, me, number, producer).await,
        _ => write(client, me, number, producer).await,
    }
}

/// The number of the open transaction, begun if there is none.
fn begun(client: &mut Client, me: usize) -> u64 {
    let mut world = client.world.borrow_mut();
    if let Some(number) = world.transactors[me].open {
        return number;
    }
    let number = world.transactions.len() as u64 + 1;
    world.transactions.insert(number, Transaction::new(me));
    world.transactors[me].open = Some(number);
    number
}

async fn init(client: &Client, me: usize) -> Result<(), BrokerError> {
    let id = format!("id-{me}");
    let now_ms = client.clock.now_ms();
    let call = client
        .broker
        .init_transactional(&client.caller, &id, TIMEOUT_MS, None, now_ms);
    let identity = call.await?;
    let mut world = client.world.borrow_mut();
    world.transactors[me].begin_anew();
    world.transactors[me].identity = Some(identity);
    Ok(())
}

fn is_implicit(me: usize) -> bool {
    me.is_multiple_of(2)
}

/// A batch of the transaction, on its way.
async fn send(
    client: &mut Client,
    me: usize,
    number: u64,
    producer: &TransactionalProducer,
) -> Result<(Sent, Pin<Box<dyn Future<Output = Answer>>>), BrokerError> {
    let (topic, partitions) = WRITTEN[client.rng.random_range(0..WRITTEN.len())];
    let partition = client.rng.random_range(0..partitions);
    let now_ms = client.clock.now_ms();
    if !is_implicit(me) {
        let partitions = [(topic.to_owned(), partition)];
        let call = client
            .broker
            .add_partitions(&client.caller, producer, &partitions, now_ms);
        call.await?.remove(0)?;
    }
    let (sequence, value) = {
        let world = client.world.borrow();
        let sequences = &world.transactors[me].sequences;
        let sequence = sequences.get(&(topic, partition)).copied().unwrap_or(0);
        (
            sequence,
            format!("tx:{number}:{sequence}:{}", filler(&mut client.rng)),
        )
    };
    let placed = PlacedBatch {
        topic: client.broker.topic(&client.caller, topic)?,
        partition,
        batch: transactional(&mut client.rng, producer.identity, sequence, &value, now_ms),
    };
    let (broker, caller, id) = (
        client.broker.clone(),
        client.caller.clone(),
        producer.id.clone(),
    );
    let adds = is_implicit(me);
    let call = async move {
        broker
            .produce_in_transaction(&caller, &id, adds, vec![placed], now_ms)
            .await
    };
    let sent = Sent {
        topic,
        partition,
        value,
    };
    Ok((sent, Box::pin(call)))
}

struct Sent {
    topic: &'static str,
    partition: u32,
    value: String,
}

async fn write(
    client: &mut Client,
    me: usize,
    number: u64,
    producer: TransactionalProducer,
) -> Result<(), BrokerError> {
    let (sent, call) = send(client, me, number, &producer).await?;
    let produced = call.await?.remove(0)?;
    let mut world = client.world.borrow_mut();
    let sequences = &mut world.transactors[me].sequences;
    *sequences.entry((sent.topic, sent.partition)).or_default() += 1;
    take_note(&mut world, number, &sent, &produced);
    Ok(())
}

/// It was told that the record stands there.
fn take_note(world: &mut crate::world::World, number: u64, sent: &Sent, produced: &Produced) {
    let partition = world.partition(sent.topic, sent.partition);
    let record = record_hash(None, Some(sent.value.as_bytes()));
    world.see(partition, produced.base_offset, record);
    let transaction = world.transactions.get_mut(&number).expect("it was begun");
    transaction.written.push((partition, produced.base_offset));
}

async fn offset(
    client: &Client,
    me: usize,
    number: u64,
    producer: TransactionalProducer,
) -> Result<(), BrokerError> {
    let now_ms = client.clock.now_ms();
    let (broker, caller) = (&client.broker, &client.caller);
    if !is_implicit(me) {
        broker
            .add_offsets(caller, &producer, &group(me), now_ms)
            .await?;
    }
    let commit = TransactionCommit {
        producer,
        adds_group: is_implicit(me),
        commit: GroupCommit {
            member: GroupMember {
                group: group(me),
                generation: -1,
                ..GroupMember::default()
            },
            offsets: vec![OffsetCommit {
                topic: INPUT.into(),
                offset: number as i64,
                ..OffsetCommit::default()
            }],
        },
    };
    let outcomes = broker
        .commit_transaction_offsets(caller, commit, now_ms)
        .await?;
    outcomes.into_iter().collect::<Result<(), _>>()?;
    let mut world = client.world.borrow_mut();
    world
        .transactions
        .get_mut(&number)
        .expect("it was begun")
        .offset = true;
    Ok(())
}

async fn end(
    client: &mut Client,
    me: usize,
    number: u64,
    producer: TransactionalProducer,
    is_empty: bool,
) -> Result<(), BrokerError> {
    let commit = !is_empty && client.rng.random_bool(0.7);
    if is_empty && !is_implicit(me) {
        // There is nothing to end.
        client.world.borrow_mut().transactors[me].open = None;
        return Ok(());
    }
    if commit {
        let mut world = client.world.borrow_mut();
        world
            .transactions
            .get_mut(&number)
            .expect("it was begun")
            .fate = Fate::Unknown;
        world.transactors[me].committing = true;
    }
    // A client that does not wait for its batch: it belongs to this transaction, or to none.
    let mut late = match client.rng.random_bool(0.2) && !is_empty {
        true => Some(send(client, me, number, &producer).await?),
        false => None,
    };
    let mut answer = None;
    if let Some((_, call)) = &mut late {
        std::future::poll_fn(|context| {
            if let Poll::Ready(outcome) = call.as_mut().poll(context) {
                answer = Some(outcome);
            }
            Poll::Ready(())
        })
        .await;
    }
    let now_ms = client.clock.now_ms();
    let ended = client
        .broker
        .end_transaction(&client.caller, &producer, commit, is_implicit(me), now_ms)
        .await;
    if let Some((sent, call)) = late {
        let answer = match answer {
            Some(answer) => answer,
            None => call.await,
        };
        match answer.and_then(|mut outcomes| outcomes.remove(0)) {
            Ok(produced) => take_note(&mut client.world.borrow_mut(), number, &sent, &produced),
            Err(
                BrokerError::InvalidTransactionState { .. } | BrokerError::ProducerFenced { .. },
            ) => {
                met(TOO_LATE);
            }
            // Said of the end as well.
            Err(_) => {}
        }
        // Whether it has used its sequence up is not known under the old epoch: the next life has its own.
        client.world.borrow_mut().transactors[me].identity = None;
    }
    let next = ended?;
    let mut world = client.world.borrow_mut();
    note!(world.trace, "    transaction {number} is ended: {commit}");
    let transaction = world.transactions.get_mut(&number).expect("it was begun");
    transaction.fate = if commit {
        Fate::Committed
    } else {
        Fate::Aborted
    };
    met(if commit { COMMITTED } else { ABORTED });
    let one = &mut world.transactors[me];
    one.open = None;
    if one.identity.is_some() {
        if one.identity != Some(next) {
            one.sequences.clear();
        }
        one.identity = Some(next);
    }
    Ok(())
}

fn transactional(
    rng: &mut SmallRng,
    producer: ProducerIdentity,
    sequence: i32,
    value: &str,
    timestamp_ms: i64,
) -> Batch {
    let compression = match rng.random_bool(0.1) {
        true => Compression::Lz4,
        false => Compression::None,
    };
    let mut builder = BatchBuilder::new(compression, 1 << 20);
    builder
        .producer(producer.id, producer.epoch, sequence)
        .transactional();
    let added = builder.append(timestamp_ms, None, Some(value.as_bytes()), &[]);
    added.expect("it fits");
    builder.build().expect("a batch of records")
}
