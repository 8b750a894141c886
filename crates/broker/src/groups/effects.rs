//! What the state machine of a group asks for: answers to who waits, and frames.

use super::consumer::types::ConsumerBeat;
use super::record::Record;
use super::types::{Joined, Synced};
use crate::BrokerError;

/// Somebody who waits for an answer, named by whoever called.
pub(crate) type WaitId = u64;

/// Something to be done, in this order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A join is answered.
    Joined(WaitId, Result<Joined, BrokerError>),
    /// A sync is answered.
    Synced(WaitId, Result<Synced, BrokerError>),
    /// A heartbeat of the consumer protocol is answered.
    Beat(WaitId, Result<ConsumerBeat, BrokerError>),
    /// The group's record is to be made durable; then the machine is told.
    Store(Record, Storing),
}

/// Why a record is stored: what happens once it is.
#[derive(Debug)]
pub(crate) enum Storing {
    /// The assignment of a generation: its members hear it.
    Assignment {
        /// The generation.
        generation: i32,
    },
    /// A static member came back under a new id: it is answered.
    Replaced {
        /// Who waits.
        wait: WaitId,
        /// The answer.
        joined: Joined,
        /// The static name.
        instance_id: String,
        /// The id before, should the frame fail.
        old_member_id: String,
    },
    /// That the group has become empty: nobody waits.
    Empty,
    /// A group of the consumer protocol, as it is: whoever waits for it is known to it.
    Group,
}
