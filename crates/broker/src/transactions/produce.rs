//! Batches that belong to a transaction.

use mainstem_engine::{Committed, Submission, Ticket};

use super::calls::check_producer;
use super::coordinator::{IdKey, State};
use super::machine::Machine;
use crate::broker::Broker;
use crate::coordinator::{Answer, answered};
use crate::produce::{ProduceCall, allowed};
use crate::topics::MAX_TRIES;
use crate::{BrokerError, Caller, PlacedBatch, Produced, ProducerIdentity, names};

/// What becomes of a call's batches.
enum Handed {
    /// Something is under way that decides over them.
    Busy(Answer<()>),
    /// They are on their way.
    Submitted(Ticket<Committed>),
    /// All were refused.
    Nothing,
}

impl Broker {
    /// Appends batches as [`Broker::produce_placed`] does; those that are transactional belong to the open transaction of
    /// `id`, whose producer they must name. With `adds_partitions` their partitions become part of it, and the
    /// transaction begins if none is open (KIP-890; Produce from version 12); without it, a batch for a partition that
    /// was not added is refused ([`BrokerError::NotInTransaction`]).
    ///
    /// Nothing of a transaction is ever appended after its end, however late a batch comes.
    pub async fn produce_in_transaction(
        &self,
        caller: &Caller,
        id: &str,
        adds_partitions: bool,
        batches: Vec<PlacedBatch>,
        now_ms: i64,
    ) -> Result<Vec<Result<Produced, BrokerError>>, BrokerError> {
        check_producer(caller, id)?;
        let batches = batches.into_iter().map(|placed| allowed(caller, placed));
        let mut call = ProduceCall::new(batches.collect(), Some(id.to_owned()), now_ms);
        let key = IdKey::new(caller, id);
        for _ in 0..MAX_TRIES {
            let handed = self.inner.transactions.with(Some(now_ms), |state| {
                hand_over(state, &key, &mut call, adds_partitions, now_ms)
            });
            match handed {
                Handed::Busy(done) => answered(done).await?,
                Handed::Nothing => return Ok(call.outcomes),
                Handed::Submitted(ticket) => {
                    let committed = ticket.await?;
                    return Ok(call.answered(committed.appends, now_ms));
                }
            }
        }
        Err(BrokerError::ConcurrentTransactions {
            id: names::shorten(id),
        })
    }
}

/// Refuses what may not be appended, and submits the rest, under the coordinator's lock.
fn hand_over(
    state: &mut State,
    key: &IdKey,
    call: &mut ProduceCall,
    adds: bool,
    now_ms: i64,
) -> Handed {
    let mut nobody = Machine::new(&key.id);
    let mut busy = false;
    let mut transaction = None;
    let machine = state.machine_mut(key).unwrap_or(&mut nobody);
    // First whether something is under way: what is refused meanwhile would not be asked again.
    for append in &call.appends {
        let header = append.batch.header();
        let producer = identity(header.producer_id, header.producer_epoch);
        busy |= header.is_transactional() && matches!(machine.admits(producer), Ok(false));
    }
    if busy {
        return Handed::Busy(state.wait(key));
    }
    call.refuse(|append, name| {
        let header = append.batch.header();
        if !header.is_transactional() {
            return None;
        }
        let producer = identity(header.producer_id, header.producer_epoch);
        if let Err(error) = machine.check(producer) {
            return Some(error);
        }
        match machine.takes(append.partition, adds, now_ms) {
            Ok(Some(taken)) => {
                transaction = Some(taken);
                None
            }
            Ok(None) => Some(machine.not_in_transaction(name())),
            Err(error) => Some(error),
        }
    });
    state.set_timer(key);
    if call.appends.is_empty() {
        return Handed::Nothing;
    }
    let submission = Submission {
        appends: std::mem::take(&mut call.appends),
        transaction,
        ..Submission::default()
    };
    Handed::Submitted(state.engine().submit_in_turn(submission))
}

fn identity(id: i64, epoch: i16) -> ProducerIdentity {
    ProducerIdentity { id, epoch }
}
