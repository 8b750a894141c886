//! What is asked of the cluster as a whole: it is one node, which leads and coordinates everything.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ApiVersionsRequest,
    ApiVersionsResponse, BrokerId, DescribeClusterRequest, DescribeClusterResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, ElectLeadersRequest, ElectLeadersResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::api::TABLE;
use crate::call::Call;
use crate::client::Client;
use crate::codes::Refusal;
use crate::features;
use crate::metadata::{CLUSTER_OPERATIONS, NO_OPERATIONS, text, topic_name};
use crate::topic_ref::partition_number;

fn node(client: &Client) -> BrokerId {
    BrokerId(client.gateway.settings.node_id)
}

/// What is served. A version that is not there is answered in version 0, with the error and all the same.
pub(crate) async fn api_versions(
    _client: &Client,
    call: &Call,
    _request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    let api = |api: &crate::api::Api| {
        ApiVersion::default()
            .with_api_key(api.key)
            .with_min_version(api.advertised_from())
            .with_max_version(api.versions.1)
    };
    let error = if call.api.serves(call.version) {
        0
    } else {
        ResponseError::UnsupportedVersion.code()
    };
    let response = ApiVersionsResponse::default()
        .with_error_code(error)
        .with_api_keys(TABLE.iter().map(api).collect());
    features::tell(response, call.answer_version())
}

/// This node coordinates every group and every transaction.
pub(crate) async fn find_coordinator(
    client: &Client,
    call: &Call,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    const GROUP: i8 = 0;
    const TRANSACTION: i8 = 1;
    let (host, port) = client.advertised();
    let host = StrBytes::from_string(host);
    let refusal = match request.key_type {
        GROUP | TRANSACTION => None,
        other => Some(Refusal::new(
            ResponseError::InvalidRequest,
            format!("there is no coordinator of type {other}"),
        )),
    };
    if call.version < 4 {
        let response = FindCoordinatorResponse::default();
        return match refusal {
            None => response
                .with_error_message(None)
                .with_node_id(node(client))
                .with_host(host)
                .with_port(port),
            Some(refusal) => response
                .with_error_code(refusal.code())
                .with_error_message(refusal.text())
                .with_node_id(BrokerId(-1))
                .with_port(-1),
        };
    }
    let coordinator = |key: StrBytes| {
        let entry = Coordinator::default().with_key(key);
        match &refusal {
            None => entry
                .with_error_message(None)
                .with_node_id(node(client))
                .with_host(host.clone())
                .with_port(port),
            Some(refusal) => entry
                .with_error_code(refusal.code())
                .with_error_message(refusal.text())
                .with_node_id(BrokerId(-1))
                .with_port(-1),
        }
    };
    let coordinators = request.coordinator_keys.into_iter().map(coordinator);
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

pub(crate) async fn describe(
    client: &Client,
    call: &Call,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    const BROKERS: i8 = 1;
    let response = DescribeClusterResponse::default().with_error_message(None);
    if call.version >= 1 && request.endpoint_type != BROKERS {
        let why = "there are no controllers apart from the brokers";
        return response
            .with_error_code(ResponseError::UnsupportedEndpointType.code())
            .with_error_message(Some(text(why)));
    }
    let (host, port) = client.advertised();
    let broker = DescribeClusterBroker::default()
        .with_broker_id(node(client))
        .with_host(StrBytes::from_string(host))
        .with_port(port);
    let operations = if request.include_cluster_authorized_operations {
        CLUSTER_OPERATIONS
    } else {
        NO_OPERATIONS
    };
    response
        .with_cluster_id(StrBytes::from_string(client.gateway.mainstem.cluster_id()))
        .with_controller_id(node(client))
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(operations)
}

/// One directory, with what each partition takes in it.
pub(crate) async fn log_dirs(
    client: &Client,
    call: &Call,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let (broker, caller) = (client.broker(), &client.caller);
    let mut wanted: BTreeMap<TopicName, Option<Vec<i32>>> = BTreeMap::new();
    match request.topics {
        Some(topics) => {
            wanted.extend(
                topics
                    .into_iter()
                    .map(|one| (one.topic, Some(one.partitions))),
            );
        }
        None => {
            let all = broker.list_topics(caller).unwrap_or_default();
            wanted.extend(all.iter().map(|topic| (topic_name(&topic.name), None)));
        }
    }
    let mut topics = Vec::with_capacity(wanted.len());
    for (name, partitions) in wanted {
        // What is not there has no place on the disk.
        let Ok(described) = broker.describe_topic(caller, name.as_str()) else {
            continue;
        };
        let partition = |bounds: &mainstem::broker::PartitionBounds| {
            let index = i32::try_from(bounds.partition).unwrap_or(i32::MAX);
            if partitions
                .as_ref()
                .is_some_and(|wanted| !wanted.contains(&index))
            {
                return None;
            }
            let size = i64::try_from(bounds.size_bytes).unwrap_or(i64::MAX);
            Some(
                DescribeLogDirsPartition::default()
                    .with_partition_index(index)
                    .with_partition_size(size),
            )
        };
        topics.push(
            DescribeLogDirsTopic::default()
                .with_name(name)
                .with_partitions(described.bounds.iter().filter_map(partition).collect()),
        );
    }
    let status = client.gateway.mainstem.status();
    let mut result = DescribeLogDirsResult::default()
        .with_log_dir(text(&status.data_dir))
        .with_topics(topics);
    if call.version >= 4 {
        let total_bytes = client.gateway.mainstem.disk_total_bytes();
        result.usable_bytes = capped(status.disk_free_bytes);
        // -1 is Kafka's word for what cannot be told.
        result.total_bytes = total_bytes.map_or(-1, capped);
    }
    DescribeLogDirsResponse::default().with_results(vec![result])
}

/// As much of it as the protocol can say.
fn capped(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Whether a partition is there.
fn check_partition(client: &Client, topic: &str, index: i32) -> Result<(), Refusal> {
    let partition = partition_number(index)?;
    client
        .broker()
        .partition_bounds(&client.caller, topic, partition)?;
    Ok(())
}

/// Every partition has its leader, so no election is needed.
pub(crate) async fn elect_leaders(
    client: &Client,
    _call: &Call,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let mut results = Vec::new();
    for topic in request.topic_partitions.unwrap_or_default() {
        let elect = |index: &i32| {
            let refusal = match check_partition(client, topic.topic.as_str(), *index) {
                Ok(()) => Refusal::new(
                    ResponseError::ElectionNotNeeded,
                    "the partition's only replica leads it",
                ),
                Err(refusal) => refusal,
            };
            PartitionResult::default()
                .with_partition_id(*index)
                .with_error_code(refusal.code())
                .with_error_message(refusal.text())
        };
        results.push(
            ReplicaElectionResult::default()
                .with_topic(topic.topic.clone())
                .with_partition_result(topic.partitions.iter().map(elect).collect()),
        );
    }
    ElectLeadersResponse::default().with_replica_election_results(results)
}

/// A partition may be assigned to where it is, and nowhere else.
pub(crate) async fn alter_reassignments(
    client: &Client,
    _call: &Call,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.as_str();
        let reassign = |partition: &ReassignablePartition| {
            let reassigned = check_partition(client, name, partition.partition_index)
                .and_then(|()| check_replicas(client, partition.replicas.as_deref()));
            let entry = ReassignablePartitionResponse::default()
                .with_partition_index(partition.partition_index);
            match reassigned {
                Ok(()) => entry.with_error_message(None),
                Err(refusal) => entry
                    .with_error_code(refusal.code())
                    .with_error_message(refusal.text()),
            }
        };
        responses.push(
            ReassignableTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(topic.partitions.iter().map(reassign).collect()),
        );
    }
    AlterPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_responses(responses)
}

fn check_replicas(client: &Client, replicas: Option<&[BrokerId]>) -> Result<(), Refusal> {
    match replicas {
        None => Err(Refusal::new(
            ResponseError::NoReassignmentInProgress,
            "the partition is not being reassigned",
        )),
        Some([only]) if *only == node(client) => Ok(()),
        Some(_) => Err(Refusal::new(
            ResponseError::InvalidReplicaAssignment,
            format!(
                "there is one node, {}, and every partition is on it",
                node(client).0
            ),
        )),
    }
}

/// None is ever under way.
pub(crate) async fn list_reassignments(
    _client: &Client,
    _call: &Call,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}
