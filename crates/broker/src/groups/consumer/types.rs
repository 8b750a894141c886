//! What is asked of groups of the consumer protocol, and what they answer (KIP-848).

use std::sync::Arc;

use mainstem_log::PartitionId;

use crate::groups::types::GroupState;

/// The member epoch of who joins.
pub const JOIN_EPOCH: i32 = 0;
/// The member epoch of who leaves for good.
pub const LEAVE_EPOCH: i32 = -1;
/// The member epoch of a static member that leaves and means to come back.
pub const STATIC_LEAVE_EPOCH: i32 = -2;

/// A member says that it is there, what it wants and what it has; what it leaves out is as it was.
#[derive(Clone, Debug, Default)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group: String,
    /// The member's id; the member makes it. Empty where the broker is to make one for who joins
    /// (ConsumerGroupHeartbeat version 0).
    pub member_id: String,
    /// The member's epoch as it knows it; [`JOIN_EPOCH`] to join, [`LEAVE_EPOCH`] or [`STATIC_LEAVE_EPOCH`] to leave.
    pub member_epoch: i32,
    /// The name of a static member, which keeps its partitions over restarts.
    pub instance_id: Option<String>,
    /// Where the member runs; kept and shown, and no assignor here looks at it.
    pub rack_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where the client is.
    pub client_host: String,
    /// How long the member may take to give partitions up, in milliseconds.
    pub rebalance_timeout_ms: Option<i64>,
    /// The topics it reads, by their names.
    pub topics: Option<Vec<String>>,
    /// The topics it reads besides, by a pattern of whole names; empty for none.
    pub pattern: Option<String>,
    /// The assignor it likes best.
    pub assignor: Option<String>,
    /// The partitions it has.
    pub owned: Option<Vec<PartitionId>>,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerBeat {
    /// The member's id.
    pub member_id: String,
    /// The member's epoch now.
    pub member_epoch: i32,
    /// When it is to be heard of again, in milliseconds.
    pub heartbeat_interval_ms: i64,
    /// The partitions it may have, all of them, in order; `None` where that is as it was.
    pub assignment: Option<Vec<PartitionId>>,
}

/// A group of the consumer protocol with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupDescription {
    /// Its name.
    pub group: String,
    /// Where it stands.
    pub state: GroupState,
    /// Its epoch: grows with every change of members, subscriptions or topics.
    pub epoch: i32,
    /// The epoch that the target assignment was made for.
    pub assignment_epoch: i32,
    /// The assignor that holds.
    pub assignor: &'static str,
    /// Its members, by id.
    pub members: Vec<ConsumerMemberDescription>,
}

/// A member, as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerMemberDescription {
    /// Its id.
    pub member_id: String,
    /// Its static name.
    pub instance_id: Option<String>,
    /// Where it says it runs.
    pub rack_id: Option<String>,
    /// Its epoch.
    pub epoch: i32,
    /// What its client calls itself.
    pub client_id: String,
    /// Where its client is.
    pub client_host: String,
    /// The topics it names, in order.
    pub topics: Vec<String>,
    /// The pattern of further topics.
    pub pattern: Option<String>,
    /// What it has been given, of topics that there are.
    pub assignment: Vec<AssignedTopic>,
    /// What it is to have in the end.
    pub target: Vec<AssignedTopic>,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedTopic {
    /// The topic's identity.
    pub id: mainstem_log::TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions, in order.
    pub partitions: Vec<u32>,
}
