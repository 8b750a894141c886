//! Consumer groups: who reads which partition, and how far they have come.
//!
//! A group is two things that live apart. Its **offsets** lie in the store and nowhere else ([`offsets`]): a commit is
//! one frame, whatever the number of partitions, and is answered when it is durable and applied. Its **members** are a
//! state machine in memory: pure, each event with its time, each answer an effect. There are two, and a group without
//! members changes from one to the other as its next member wants it ([`members`]): [`classic`], in which the members
//! assign, and [`consumer`], in which the broker does. A record of the group ([`record`]) is made durable before any member
//! hears its assignment, so that a restart finds the group as its members know it and disturbs nobody.
//!
//! ```text
//!   join, sync, heartbeat, leave, commit          Broker::move_coordinators, by one thread
//!            │                                       ▲ frames that are done      ▲ time
//!            ▼                                       │                           │
//!   coordinator: one lock over all groups ── frame ──┘        deadlines ─────────┘
//!            │   └── classic, consumer: the rules
//!            ▼
//!   answers: tickets
//! ```
//!
//! Whoever calls [`Broker::move_coordinators`](crate::Broker::move_coordinators) is the only one who brings time and finished
//! frames in; a caller that goes away leaves nothing half done.

mod admin;
mod calls;
mod classic;
mod commits;
mod configs;
mod consumer;
mod coordinator;
mod effects;
mod expiry;
mod fetch;
mod heartbeats;
mod members;
pub(crate) mod offsets;
pub(crate) mod record;
mod settings;
mod subscription;
mod topics;
mod types;

pub use configs::GroupConfig;
pub(crate) use consumer::assignor::ASSIGNORS;
pub use consumer::types::{
    AssignedTopic, ConsumerBeat, ConsumerGroupDescription, ConsumerHeartbeat,
    ConsumerMemberDescription, JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH,
};
pub(crate) use coordinator::{Adopted, GroupKey, Groups};
pub use expiry::GroupExpiryRound;
pub use offsets::CommittedOffset;
pub use settings::GroupSettings;
pub use types::{
    GroupCommit, GroupDescription, GroupListing, GroupMember, GroupOffset, GroupState, GroupType,
    JoinGroup, Joined, JoinedMember, LeavingMember, MemberDescription, OffsetCommit,
    OffsetsOfTopic, Protocol, SyncGroup, Synced,
};
