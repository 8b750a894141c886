//! The one table of what is served: it drives decoding, dispatch, ApiVersions and the page in `docs/`.

use futures::future::BoxFuture;

use crate::call::{Answer, Call};
use crate::client::Client;
use crate::error::KafkaError;
use crate::shape::Shape;
use crate::{
    acls, cluster, configs, fetch, group_admin, group_heartbeats, group_members, group_offsets,
    metadata, offsets, shapes, topics, transaction_admin, transactions,
};

/// A kind of request, as this gateway serves it.
pub(crate) struct Api {
    /// Kafka's number for it.
    pub(crate) key: i16,
    /// Kafka's name for it.
    pub(crate) name: &'static str,
    /// The lowest and highest version that is answered.
    pub(crate) versions: (i16, i16),
    /// The first version with flexible fields (KIP-482): its request header is v2 and its response header v1, where they
    /// are v1 and v0 before.
    pub(crate) flexible: i16,
    pub(crate) handler: Handler,
}

/// A request that is answered when everything before it on its connection has been.
pub(crate) type InTurn =
    for<'a> fn(&'a Client, Call) -> BoxFuture<'a, Result<Option<Answer>, KafkaError>>;

pub(crate) enum Handler {
    /// Produce, which is begun while others like it are under way.
    Produce,
    /// Our own codec.
    Own(InTurn),
    /// Decoded by `kafka-protocol`, after a look along its shape.
    Control(Shape, InTurn),
}

impl Api {
    pub(crate) fn serves(&self, version: i16) -> bool {
        (self.versions.0..=self.versions.1).contains(&version)
    }

    /// The lowest version that ApiVersions names. Produce says 0 although it takes 3 and later: an older librdkafka takes a
    /// higher minimum for a broker that cannot do compression, and stops compressing without a word (KAFKA-18659).
    pub(crate) fn advertised_from(&self) -> i16 {
        match self.handler {
            Handler::Produce => 0,
            _ => self.versions.0,
        }
    }

    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }
}

/// Kafka's number for ApiVersions, which has rules of its own.
pub(crate) const API_VERSIONS: i16 = 18;
/// For an API that never became flexible.
const NEVER: i16 = i16::MAX;

/// A handler of decoded requests.
macro_rules! control {
    ($shape:ident, $handler:path) => {
        Handler::Control(shapes::$shape, |client, call| {
            Box::pin(async move {
                let request = call.request()?;
                let response = $handler(client, &call, request).await;
                call.answer(&response).map(Some)
            })
        })
    };
}

const fn api(
    key: i16,
    name: &'static str,
    versions: (i16, i16),
    flexible: i16,
    handler: Handler,
) -> Api {
    Api {
        key,
        name,
        versions,
        flexible,
        handler,
    }
}

/// Everything that is served, by Kafka's numbers. A test exercises each version of each.
#[rustfmt::skip] // One line each.
pub(crate) const TABLE: &[Api] = &[
    api(0, "Produce", (3, 13), 9, Handler::Produce),
    api(1, "Fetch", (4, 18), 12, Handler::Own(|client, call| Box::pin(fetch::fetch(client, call)))),
    api(2, "ListOffsets", (1, 10), 6, control!(LIST_OFFSETS, offsets::list)),
    api(3, "Metadata", (0, 13), 9, control!(METADATA, metadata::metadata)),
    api(8, "OffsetCommit", (2, 9), 8, control!(OFFSET_COMMIT, group_offsets::commit)),
    api(9, "OffsetFetch", (1, 9), 6, control!(OFFSET_FETCH, group_offsets::fetch)),
    api(10, "FindCoordinator", (0, 6), 3, control!(FIND_COORDINATOR, cluster::find_coordinator)),
    api(11, "JoinGroup", (0, 9), 6, control!(JOIN_GROUP, group_members::join)),
    api(12, "Heartbeat", (0, 4), 4, control!(HEARTBEAT, group_members::heartbeat)),
    api(13, "LeaveGroup", (0, 5), 4, control!(LEAVE_GROUP, group_members::leave)),
    api(14, "SyncGroup", (0, 5), 4, control!(SYNC_GROUP, group_members::sync)),
    api(15, "DescribeGroups", (0, 6), 5, control!(DESCRIBE_GROUPS, group_admin::describe)),
    api(16, "ListGroups", (0, 5), 3, control!(LIST_GROUPS, group_admin::list)),
    api(API_VERSIONS, "ApiVersions", (0, 4), 3, control!(API_VERSIONS, cluster::api_versions)),
    api(19, "CreateTopics", (2, 7), 5, control!(CREATE_TOPICS, topics::create)),
    api(20, "DeleteTopics", (1, 6), 4, control!(DELETE_TOPICS, topics::delete)),
    api(21, "DeleteRecords", (0, 2), 2, control!(DELETE_RECORDS, topics::delete_records)),
    api(22, "InitProducerId", (0, 5), 2, control!(INIT_PRODUCER_ID, transactions::init)),
    api(23, "OffsetForLeaderEpoch", (2, 4), 4, control!(OFFSET_FOR_LEADER_EPOCH, offsets::for_leader_epoch)),
    api(24, "AddPartitionsToTxn", (0, 5), 3, control!(ADD_PARTITIONS_TO_TXN, transactions::add_partitions)),
    api(25, "AddOffsetsToTxn", (0, 4), 3, control!(ADD_OFFSETS_TO_TXN, transactions::add_offsets)),
    api(26, "EndTxn", (0, 5), 3, control!(END_TXN, transactions::end)),
    api(28, "TxnOffsetCommit", (0, 5), 3, control!(TXN_OFFSET_COMMIT, group_offsets::commit_in_transaction)),
    api(29, "DescribeAcls", (1, 3), 2, control!(DESCRIBE_ACLS, acls::describe)),
    api(30, "CreateAcls", (1, 3), 2, control!(CREATE_ACLS, acls::create)),
    api(31, "DeleteAcls", (1, 3), 2, control!(DELETE_ACLS, acls::delete)),
    api(32, "DescribeConfigs", (1, 4), 4, control!(DESCRIBE_CONFIGS, configs::describe)),
    api(33, "AlterConfigs", (0, 2), 2, control!(ALTER_CONFIGS, configs::replace)),
    api(35, "DescribeLogDirs", (1, 4), 2, control!(DESCRIBE_LOG_DIRS, cluster::log_dirs)),
    api(37, "CreatePartitions", (0, 3), 2, control!(CREATE_PARTITIONS, topics::create_partitions)),
    api(42, "DeleteGroups", (0, 2), 2, control!(DELETE_GROUPS, group_admin::delete)),
    api(43, "ElectLeaders", (0, 2), 2, control!(ELECT_LEADERS, cluster::elect_leaders)),
    api(44, "IncrementalAlterConfigs", (0, 1), 1, control!(INCREMENTAL_ALTER_CONFIGS, configs::alter)),
    api(45, "AlterPartitionReassignments", (0, 1), 0, control!(ALTER_PARTITION_REASSIGNMENTS, cluster::alter_reassignments)),
    api(46, "ListPartitionReassignments", (0, 0), 0, control!(LIST_PARTITION_REASSIGNMENTS, cluster::list_reassignments)),
    api(47, "OffsetDelete", (0, 0), NEVER, control!(OFFSET_DELETE, group_offsets::delete)),
    api(60, "DescribeCluster", (0, 2), 0, control!(DESCRIBE_CLUSTER, cluster::describe)),
    api(61, "DescribeProducers", (0, 0), 0, control!(DESCRIBE_PRODUCERS, transaction_admin::describe_producers)),
    api(65, "DescribeTransactions", (0, 0), 0, control!(DESCRIBE_TRANSACTIONS, transaction_admin::describe)),
    api(66, "ListTransactions", (0, 2), 0, control!(LIST_TRANSACTIONS, transaction_admin::list)),
    api(68, "ConsumerGroupHeartbeat", (0, 1), 0, control!(CONSUMER_GROUP_HEARTBEAT, group_heartbeats::heartbeat)),
    api(69, "ConsumerGroupDescribe", (0, 1), 0, control!(CONSUMER_GROUP_DESCRIBE, group_heartbeats::describe)),
    api(75, "DescribeTopicPartitions", (0, 0), 0, control!(DESCRIBE_TOPIC_PARTITIONS, metadata::describe_topic_partitions)),
];

/// The entry of that number.
pub(crate) fn find(key: i16) -> Option<&'static Api> {
    TABLE.iter().find(|api| api.key == key)
}

/// The table as `docs/kafka.md` shows it.
pub fn table_markdown() -> String {
    let mut text = String::from("| API | number | versions |\n|---|---|---|\n");
    for api in TABLE {
        let (from, to) = (api.advertised_from(), api.versions.1);
        let accepted = match api.versions.0 {
            accepted if accepted != from => format!(" ({accepted}–{to} accepted)"),
            _ => String::new(),
        };
        text.push_str(&format!(
            "| {} | {} | {from}–{to}{accepted} |\n",
            api.name, api.key
        ));
    }
    text
}
