//! What is asked of groups, and what they answer. The words are those of Kafka's group protocol (KIP-62, KIP-345,
//! KIP-394).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::offsets::CommittedOffset;
use crate::Topic;

/// A member asks to be part of the next generation.
#[derive(Clone, Debug, Default)]
pub struct JoinGroup {
    /// The group.
    pub group: String,
    /// The member's id; empty where it has none yet.
    pub member_id: String,
    /// The name of a static member, which keeps its place over restarts (KIP-345).
    pub instance_id: Option<String>,
    /// What the client calls itself; the id of a new dynamic member begins with it.
    pub client_id: String,
    /// Where the client is.
    pub client_host: String,
    /// Without a heartbeat for so long the member is removed, in milliseconds.
    pub session_timeout_ms: i64,
    /// How long a rebalance waits for this member, in milliseconds.
    pub rebalance_timeout_ms: i64,
    /// What kind of group it is: `consumer`, `connect`, or the client's own.
    pub protocol_type: String,
    /// The protocols it speaks, the one it likes best first.
    pub protocols: Vec<Protocol>,
    /// Whether a new dynamic member is first given an id, to join again with (KIP-394; JoinGroup from version 4).
    pub requires_member_id: bool,
    /// Whether a static leader that comes back may be told to leave the assignment as it is (KIP-814; JoinGroup from
    /// version 9).
    pub skips_assignment: bool,
}

/// One protocol (an assignor, for consumers) and what the member says in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// The member's subscription, in the protocol's own form.
    pub metadata: Bytes,
}

/// The answer to a join: the member is part of this generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: String,
    /// The protocol that was chosen.
    pub protocol: String,
    /// The member that assigns.
    pub leader: String,
    /// The member's id.
    pub member_id: String,
    /// For the leader: every member; empty for others.
    pub members: Vec<JoinedMember>,
    /// For a static leader that came back: the assignment stands, it need not make one.
    pub skip_assignment: bool,
}

/// A member, as its leader is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// Its static name.
    pub instance_id: Option<String>,
    /// What it says in the chosen protocol.
    pub metadata: Bytes,
}

/// A member asks for its assignment; the leader brings everybody's.
#[derive(Clone, Debug, Default)]
pub struct SyncGroup {
    /// Who asks, and for which generation.
    pub member: GroupMember,
    /// The protocol type, checked where it is given.
    pub protocol_type: Option<String>,
    /// The protocol, checked where it is given.
    pub protocol: Option<String>,
    /// From the leader: member ids and their assignments.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// The group's protocol type.
    pub protocol_type: String,
    /// The protocol that was chosen.
    pub protocol: String,
    /// What the member got, in the protocol's own form.
    pub assignment: Bytes,
}

/// A member in a generation of its group.
#[derive(Clone, Debug, Default)]
pub struct GroupMember {
    /// The group.
    pub group: String,
    /// The member's id; empty for who commits without being a member.
    pub member_id: String,
    /// The name of a static member.
    pub instance_id: Option<String>,
    /// The generation; −1 for who commits without being a member.
    pub generation: i32,
}

impl GroupMember {
    /// Whether it does not claim to be a member.
    pub(crate) fn is_nobody(&self) -> bool {
        self.member_id.is_empty() && self.instance_id.is_none()
    }
}

/// A member that leaves, named by its id, its static name, or both.
#[derive(Clone, Debug, Default)]
pub struct LeavingMember {
    /// Its id; empty where an administrator removes a static member.
    pub member_id: String,
    /// Its static name.
    pub instance_id: Option<String>,
}

/// Offsets to be committed together.
#[derive(Clone, Debug, Default)]
pub struct GroupCommit {
    /// Who commits. Member id empty and generation −1: a consumer that is not a member. For a member of the consumer
    /// protocol the generation is its epoch.
    pub member: GroupMember,
    /// Whether the client knows of member epochs (OffsetCommit from version 9).
    pub knows_epochs: bool,
    /// What: refused one by one, the rest together in one frame.
    pub offsets: Vec<OffsetCommit>,
}

/// One partition's offset to be committed.
#[derive(Clone, Debug, Default)]
pub struct OffsetCommit {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset of the next record to read.
    pub offset: i64,
    /// The leader epoch of the last record read, where the client knows it.
    pub leader_epoch: Option<i32>,
    /// Anything the client wants to keep with it.
    pub metadata: String,
}

/// All that a group has committed in a topic.
#[derive(Clone, Debug)]
pub struct OffsetsOfTopic {
    /// The topic.
    pub topic: Arc<Topic>,
    /// Partitions, in order, with what is committed.
    pub partitions: Vec<(u32, CommittedOffset)>,
}

/// What a group has committed in a partition, among all that a tenant's groups have.
#[derive(Clone, Debug)]
pub struct GroupOffset {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: Arc<Topic>,
    /// The partition.
    pub partition: u32,
    /// What is committed.
    pub committed: CommittedOffset,
}

/// Where a group stands in its life. `Display` gives Kafka's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// No members; perhaps offsets.
    Empty,
    /// Members are joining.
    PreparingRebalance,
    /// The generation is made, its assignment is not there yet.
    CompletingRebalance,
    /// Every member knows what is its.
    Stable,
    /// Of the consumer protocol: what the target assignment was made for has changed, and no member was heard since.
    Assigning,
    /// Of the consumer protocol: members are on their way to the target assignment.
    Reconciling,
}

impl GroupState {
    /// Kafka's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Assigning => "Assigning",
            GroupState::Reconciling => "Reconciling",
        }
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which protocol a group speaks. `Display` gives Kafka's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupType {
    /// The clients assign (JoinGroup, SyncGroup).
    Classic,
    /// The broker assigns (ConsumerGroupHeartbeat, KIP-848).
    Consumer,
}

impl GroupType {
    /// Kafka's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            GroupType::Classic => "classic",
            GroupType::Consumer => "consumer",
        }
    }
}

impl fmt::Display for GroupType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// Its name.
    pub group: String,
    /// What kind of group it is; empty where nobody has ever joined.
    pub protocol_type: String,
    /// Where it stands.
    pub state: GroupState,
    /// Which protocol it speaks.
    pub group_type: GroupType,
}

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// Where it stands.
    pub state: GroupState,
    /// Which protocol it speaks.
    pub group_type: GroupType,
    /// What kind of group it is; empty where nobody has ever joined.
    pub protocol_type: String,
    /// The protocol that was chosen; empty unless the group is stable.
    pub protocol: String,
    /// Its generation.
    pub generation: i32,
    /// Its members, by id.
    pub members: Vec<MemberDescription>,
}

/// A member, as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub member_id: String,
    /// Its static name.
    pub instance_id: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where its client is.
    pub client_host: String,
    /// What it says in the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// What it was assigned; empty unless the group is stable.
    pub assignment: Bytes,
}
