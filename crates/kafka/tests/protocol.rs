//! The protocol itself: every version that is named is answered, and whoever breaks the rules is left.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use bytes::BytesMut;
use common::{Connection, Gateway, batch, first, name, produce_request, text};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Request};
use std::io::Write;

/// Calls each version that ApiVersions names; `make` fills what the version needs.
fn every_version<R: Request>(
    client: &mut Connection,
    versions: &ApiVersionsResponse,
    make: impl Fn(i16) -> R,
    check: impl Fn(i16, R::Response),
) {
    let named = versions
        .api_keys
        .iter()
        .find(|api| api.api_key == R::KEY)
        .expect("it is named");
    let accepted = if R::KEY == 0 { 3 } else { named.min_version };
    for version in accepted..=named.max_version {
        let response = client.call(version, &make(version));
        check(version, response);
    }
}

#[test]
fn every_version_of_everything_that_is_named_is_answered() {
    let gateway = Gateway::start_with(&[("group.initial.rebalance.delay.ms", "0")]);
    let mut client = gateway.connect();
    let mut exercised = Vec::new();
    let versions = client.call(0, &ApiVersionsRequest::default());
    let client = &mut client;
    macro_rules! every {
        ($request:ty, $make:expr, $check:expr) => {
            exercised.push(<$request as Request>::KEY);
            every_version::<$request>(client, &versions, $make, $check);
        };
    }
    every!(
        ApiVersionsRequest,
        |version| {
            let request = ApiVersionsRequest::default();
            if version < 3 {
                request
            } else {
                request
                    .with_client_software_name(text("t"))
                    .with_client_software_version(text("1"))
            }
        },
        |_, response| assert_eq!(response.error_code, 0)
    );
    every!(
        MetadataRequest,
        |version| {
            let topic =
                metadata_request::MetadataRequestTopic::default().with_name(Some(name("t")));
            MetadataRequest::default()
                .with_topics(Some(vec![topic]))
                .with_include_topic_authorized_operations(version >= 8)
        },
        |version, response: MetadataResponse| {
            let topic = &response.topics[0];
            assert_eq!(
                (topic.error_code, topic.partitions.len()),
                (0, 1),
                "{version}"
            );
            assert_eq!(topic.topic_authorized_operations != i32::MIN, version >= 8);
        }
    );
    let id = client
        .call(12, &MetadataRequest::default().with_topics(None))
        .topics[0]
        .topic_id;
    every!(
        ProduceRequest,
        |version| {
            let mut request = produce_request("t", 0, batch(&["x"]), -1);
            if version >= 13 {
                request.topic_data[0].name = Default::default();
                request.topic_data[0].topic_id = id;
            }
            request
        },
        |version, response: ProduceResponse| assert_eq!(
            first(&response).error_code,
            0,
            "{version}"
        )
    );
    every!(
        FetchRequest,
        |version| {
            let partition = fetch_request::FetchPartition::default().with_partition_max_bytes(1000);
            let topic = fetch_request::FetchTopic::default().with_partitions(vec![partition]);
            let topic = if version >= 13 {
                topic.with_topic_id(id)
            } else {
                topic.with_topic(name("t"))
            };
            FetchRequest::default()
                .with_max_bytes(1000)
                .with_topics(vec![topic])
        },
        |version, response: FetchResponse| {
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0, "{version}");
            assert!(!partition.records.as_ref().unwrap().is_empty());
        }
    );
    every!(
        ListOffsetsRequest,
        |_| {
            let partition =
                list_offsets_request::ListOffsetsPartition::default().with_timestamp(-2);
            let topic = list_offsets_request::ListOffsetsTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![partition]);
            ListOffsetsRequest::default().with_topics(vec![topic])
        },
        |_, response| assert_eq!(response.topics[0].partitions[0].offset, 0)
    );
    every!(
        OffsetForLeaderEpochRequest,
        |_| {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                .with_topic(name("t"))
                .with_partitions(vec![partition]);
            OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
        },
        |_, response| assert!(response.topics[0].partitions[0].end_offset > 0)
    );
    every!(
        FindCoordinatorRequest,
        |version| {
            let request = FindCoordinatorRequest::default();
            if version < 4 {
                request.with_key(text("g"))
            } else {
                request.with_coordinator_keys(vec![text("g")])
            }
        },
        |version, response: FindCoordinatorResponse| {
            let port = if version < 4 {
                response.port
            } else {
                response.coordinators[0].port
            };
            assert!(port > 0);
        }
    );
    every!(
        InitProducerIdRequest,
        |_| InitProducerIdRequest::default().with_transactional_id(None),
        |_, response| assert!(response.producer_id.0 >= 0)
    );
    every!(
        CreateTopicsRequest,
        |version| {
            let topic = create_topics_request::CreatableTopic::default()
                .with_name(name(&format!("c{version}")))
                .with_num_partitions(2)
                .with_replication_factor(1);
            CreateTopicsRequest::default().with_topics(vec![topic])
        },
        |version, response| assert_eq!(response.topics[0].error_code, 0, "{version}")
    );
    every!(
        CreatePartitionsRequest,
        |version| {
            let topic = create_partitions_request::CreatePartitionsTopic::default()
                .with_name(name("c2"))
                .with_count(3 + i32::from(version))
                .with_assignments(None);
            CreatePartitionsRequest::default().with_topics(vec![topic])
        },
        |version, response| assert_eq!(response.results[0].error_code, 0, "{version}")
    );
    every!(
        DeleteRecordsRequest,
        |_| {
            let partition =
                delete_records_request::DeleteRecordsPartition::default().with_offset(1);
            let topic = delete_records_request::DeleteRecordsTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic])
        },
        |_, response| {
            let partition = &response.topics[0].partitions[0];
            assert_eq!((partition.error_code, partition.low_watermark), (0, 1));
        }
    );
    every!(
        DeleteTopicsRequest,
        |version| {
            if version < 6 {
                // The topics 2 to 5 are there, and c1 is not.
                return DeleteTopicsRequest::default()
                    .with_topic_names(vec![name(&format!("c{version}"))]);
            }
            let topic =
                delete_topics_request::DeleteTopicState::default().with_name(Some(name("c6")));
            DeleteTopicsRequest::default().with_topics(vec![topic])
        },
        |version, response| assert_eq!(
            response.responses[0].error_code,
            if version == 1 { 3 } else { 0 },
            "{version}"
        )
    );
    every!(
        DescribeConfigsRequest,
        |version| {
            let topic = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t"))
                .with_configuration_keys(None);
            let broker = topic
                .clone()
                .with_resource_type(4)
                .with_resource_name(text("1"));
            DescribeConfigsRequest::default()
                .with_resources(vec![topic, broker])
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3)
        },
        |version, response: DescribeConfigsResponse| {
            for result in response.results {
                assert_eq!(result.error_code, 0);
                assert!(result.configs.len() > 20);
                assert!(
                    result
                        .configs
                        .iter()
                        .all(|config| !config.synonyms.is_empty())
                );
                let doc = result.configs[0].documentation.as_ref();
                assert_eq!(doc.is_some_and(|doc| !doc.is_empty()), version >= 3);
            }
        }
    );
    every!(
        IncrementalAlterConfigsRequest,
        |_| {
            let config = incremental_alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let resource = incremental_alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t"))
                .with_configs(vec![config]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
        },
        |_, response| assert_eq!(response.responses[0].error_code, 0)
    );
    every!(
        AlterConfigsRequest,
        |_| {
            let config = alter_configs_request::AlterableConfig::default()
                .with_name(text("segment.ms"))
                .with_value(Some(text("5000")));
            let resource = alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t"))
                .with_configs(vec![config]);
            AlterConfigsRequest::default().with_resources(vec![resource])
        },
        |_, response| assert_eq!(response.responses[0].error_code, 0)
    );
    every!(
        DescribeClusterRequest,
        |version| {
            let request =
                DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
            if version >= 1 {
                request.with_endpoint_type(1)
            } else {
                request
            }
        },
        |_, response| assert_eq!((response.error_code, response.brokers.len()), (0, 1))
    );
    every!(
        DescribeLogDirsRequest,
        |_| DescribeLogDirsRequest::default().with_topics(None),
        |_, response| assert!(
            response.results[0]
                .topics
                .iter()
                .any(|topic| topic.partitions[0].partition_size > 0)
        )
    );
    every!(
        DescribeTopicPartitionsRequest,
        |_| {
            let topic =
                describe_topic_partitions_request::TopicRequest::default().with_name(name("t"));
            DescribeTopicPartitionsRequest::default().with_topics(vec![topic])
        },
        |_, response| assert_eq!(response.topics[0].partitions.len(), 1)
    );
    every!(
        ElectLeadersRequest,
        |_| {
            let topic = elect_leaders_request::TopicPartitions::default()
                .with_topic(name("t"))
                .with_partitions(vec![0, 9]);
            ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]))
        },
        |_, response| {
            let codes: Vec<i16> = response.replica_election_results[0]
                .partition_result
                .iter()
                .map(|one| one.error_code)
                .collect();
            assert_eq!(codes, [84, 3]);
        }
    );
    every!(
        AlterPartitionReassignmentsRequest,
        |_| {
            let to = |replicas| {
                alter_partition_reassignments_request::ReassignablePartition::default()
                    .with_replicas(replicas)
            };
            let topic = alter_partition_reassignments_request::ReassignableTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![
                    to(Some(vec![BrokerId(1)])),
                    to(Some(vec![BrokerId(2)])),
                    to(None),
                ]);
            AlterPartitionReassignmentsRequest::default().with_topics(vec![topic])
        },
        |_, response| {
            let codes: Vec<i16> = response.responses[0]
                .partitions
                .iter()
                .map(|one| one.error_code)
                .collect();
            assert_eq!(codes, [0, 39, 85]);
        }
    );
    every!(
        ListPartitionReassignmentsRequest,
        |_| ListPartitionReassignmentsRequest::default().with_topics(None),
        |_, response| assert!(response.topics.is_empty())
    );
    every!(
        DescribeAclsRequest,
        |_| DescribeAclsRequest::default().with_pattern_type_filter(3),
        |_, response| assert_eq!(response.error_code, 54)
    );
    every!(
        CreateAclsRequest,
        |_| CreateAclsRequest::default().with_creations(vec![Default::default()]),
        |_, response| assert_eq!(response.results[0].error_code, 54)
    );
    every!(
        DeleteAclsRequest,
        |_| DeleteAclsRequest::default().with_filters(vec![
            delete_acls_request::DeleteAclsFilter::default().with_pattern_type_filter(3)
        ]),
        |_, response| assert_eq!(response.filter_results[0].error_code, 54)
    );
    groups(client, &versions, &mut exercised);
    transactions(client, &versions, &mut exercised);
    let named: Vec<i16> = versions.api_keys.iter().map(|api| api.api_key).collect();
    exercised.sort_unstable();
    assert_eq!(named, exercised, "what is named is exercised here");
}

/// A transaction in each version, from its producer to its end.
fn transactions(client: &mut Connection, versions: &ApiVersionsResponse, exercised: &mut Vec<i16>) {
    use kafka_protocol::messages::add_partitions_to_txn_request as add;
    use kafka_protocol::messages::txn_offset_commit_request as commit;
    for (key, highest) in [(22, 5), (24, 5), (25, 4), (26, 5), (28, 5)] {
        let named = versions.api_keys.iter().find(|api| api.api_key == key);
        let named = named.map(|api| (api.min_version, api.max_version));
        assert_eq!(named, Some((0, highest)), "{key}");
    }
    exercised.extend([24, 25, 26, 28, 61, 65, 66]);
    for version in 0..=5 {
        let id = TransactionalId(text(&format!("transaction{version}")));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id.clone()))
            .with_transaction_timeout_ms(60_000);
        let producer = client.call(version, &request);
        assert_eq!(producer.error_code, 0, "{version}");
        let (producer_id, epoch) = (producer.producer_id, producer.producer_epoch);
        let topic = add::AddPartitionsToTxnTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default();
        let topics = if version < 4 {
            let request = request
                .with_v3_and_below_transactional_id(id.clone())
                .with_v3_and_below_producer_id(producer_id)
                .with_v3_and_below_producer_epoch(epoch)
                .with_v3_and_below_topics(vec![topic]);
            client.call(version, &request).results_by_topic_v3_and_below
        } else {
            let one = add::AddPartitionsToTxnTransaction::default()
                .with_transactional_id(id.clone())
                .with_producer_id(producer_id)
                .with_producer_epoch(epoch)
                .with_topics(vec![topic]);
            let answer = client.call(version, &request.with_transactions(vec![one]));
            answer.results_by_transaction[0].topic_results.clone()
        };
        let added = &topics[0].results_by_partition[0];
        assert_eq!(added.partition_error_code, 0, "{version}");
        let group = GroupId(text("transactional"));
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(id.clone())
            .with_producer_id(producer_id)
            .with_producer_epoch(epoch)
            .with_group_id(group.clone());
        let added = client.call(version.min(4), &request);
        assert_eq!(added.error_code, 0, "{version}");
        let partition = commit::TxnOffsetCommitRequestPartition::default().with_committed_offset(1);
        let topic = commit::TxnOffsetCommitRequestTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(id.clone())
            .with_group_id(group)
            .with_producer_id(producer_id)
            .with_producer_epoch(epoch)
            .with_topics(vec![topic]);
        let answer = client.call(version, &request);
        assert_eq!(answer.topics[0].partitions[0].error_code, 0, "{version}");
        let ids = vec![id.clone()];
        let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
        let described = client.call(0, &request).transaction_states.remove(0);
        assert_eq!(described.transaction_state.as_str(), "Ongoing", "{version}");
        let request = EndTxnRequest::default()
            .with_transactional_id(id)
            .with_producer_id(producer_id)
            .with_producer_epoch(epoch)
            .with_committed(true);
        let ended = client.call(version, &request);
        assert_eq!(ended.error_code, 0, "{version}");
        let expected = if version >= 5 { epoch + 1 } else { -1 };
        assert_eq!(ended.producer_epoch, expected, "{version}");
    }
    every_version::<ListTransactionsRequest>(
        client,
        versions,
        |_| ListTransactionsRequest::default().with_duration_filter(-1),
        |version, response| assert_eq!(response.transaction_states.len(), 6, "{version}"),
    );
    every_version::<DescribeTransactionsRequest>(
        client,
        versions,
        |_| {
            let ids = vec![TransactionalId(text("transaction0"))];
            DescribeTransactionsRequest::default().with_transactional_ids(ids)
        },
        |_, response| {
            let state = &response.transaction_states[0].transaction_state;
            assert_eq!(state.as_str(), "CompleteCommit");
        },
    );
    every_version::<DescribeProducersRequest>(
        client,
        versions,
        |_| {
            let topic = describe_producers_request::TopicRequest::default()
                .with_name(name("t"))
                .with_partition_indexes(vec![0]);
            DescribeProducersRequest::default().with_topics(vec![topic])
        },
        |_, response| assert_eq!(response.topics[0].partitions[0].error_code, 0),
    );
}

fn groups(client: &mut Connection, versions: &ApiVersionsResponse, exercised: &mut Vec<i16>) {
    let group = || GroupId(text("g"));
    exercised.extend([8, 9, 11, 12, 13, 14, 15, 16, 42, 47, 68, 69]);
    every_version::<OffsetCommitRequest>(
        client,
        versions,
        |_| {
            let partition = offset_commit_request::OffsetCommitRequestPartition::default()
                .with_committed_offset(1)
                .with_committed_metadata(Some(text("m")));
            let topic = offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![partition]);
            OffsetCommitRequest::default()
                .with_group_id(group())
                .with_topics(vec![topic])
        },
        |version, response| assert_eq!(response.topics[0].partitions[0].error_code, 0, "{version}"),
    );
    every_version::<OffsetFetchRequest>(
        client,
        versions,
        |version| {
            if version < 8 {
                let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
                    .with_name(name("t"))
                    .with_partition_indexes(vec![0]);
                return OffsetFetchRequest::default()
                    .with_group_id(group())
                    .with_topics(Some(vec![topic]));
            }
            let wanted = offset_fetch_request::OffsetFetchRequestGroup::default()
                .with_group_id(group())
                .with_topics(None);
            OffsetFetchRequest::default().with_groups(vec![wanted])
        },
        |version, response| {
            let (offset, metadata) = if version < 8 {
                let one = &response.topics[0].partitions[0];
                (one.committed_offset, one.metadata.clone())
            } else {
                let one = &response.groups[0].topics[0].partitions[0];
                (one.committed_offset, one.metadata.clone())
            };
            assert_eq!((offset, metadata.unwrap().as_str()), (1, "m"), "{version}");
        },
    );
    let member = |version: i16| format!("join{version}");
    every_version::<JoinGroupRequest>(
        client,
        versions,
        |version| {
            let protocol =
                join_group_request::JoinGroupRequestProtocol::default().with_name(text("range"));
            JoinGroupRequest::default()
                .with_group_id(GroupId(text(&member(version))))
                .with_session_timeout_ms(10_000)
                .with_rebalance_timeout_ms(if version == 0 { -1 } else { 10_000 })
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol])
        },
        |version, response: JoinGroupResponse| {
            let expected = if version >= 4 { 79 } else { 0 };
            assert_eq!(response.error_code, expected, "{version}");
            assert!(!response.member_id.is_empty());
        },
    );
    every_version::<SyncGroupRequest>(
        client,
        versions,
        |_| {
            SyncGroupRequest::default()
                .with_group_id(group())
                .with_member_id(text("m"))
                .with_protocol_type(Some(text("consumer")))
                .with_protocol_name(Some(text("range")))
        },
        |version, response| assert_eq!(response.error_code, 25, "{version}"),
    );
    every_version::<HeartbeatRequest>(
        client,
        versions,
        |_| {
            HeartbeatRequest::default()
                .with_group_id(group())
                .with_member_id(text("m"))
        },
        |version, response| assert_eq!(response.error_code, 25, "{version}"),
    );
    every_version::<LeaveGroupRequest>(
        client,
        versions,
        |version| {
            let request = LeaveGroupRequest::default().with_group_id(group());
            if version < 3 {
                return request.with_member_id(text("m"));
            }
            request.with_members(vec![
                leave_group_request::MemberIdentity::default().with_member_id(text("m")),
            ])
        },
        |version, response| {
            let code = if version < 3 {
                response.error_code
            } else {
                response.members[0].error_code
            };
            assert_eq!(code, 25, "{version}");
        },
    );
    every_version::<DescribeGroupsRequest>(
        client,
        versions,
        |_| DescribeGroupsRequest::default().with_groups(vec![group(), GroupId(text("none"))]),
        |version, response| {
            assert_eq!(response.groups[0].group_state.as_str(), "Empty");
            assert_eq!(response.groups[1].group_state.as_str(), "Dead");
            assert_eq!(
                response.groups[1].error_code,
                if version >= 6 { 69 } else { 0 }
            );
        },
    );
    every_version::<ListGroupsRequest>(
        client,
        versions,
        |version| {
            let request = ListGroupsRequest::default();
            if version >= 4 {
                request.with_states_filter(vec![text("empty")])
            } else {
                request
            }
        },
        |version, response| {
            assert!(
                response
                    .groups
                    .iter()
                    .any(|one| one.group_id.as_str() == "g"),
                "{version}"
            )
        },
    );
    let consumer = |version: i16| GroupId(text(&format!("consumer{version}")));
    every_version::<ConsumerGroupHeartbeatRequest>(
        client,
        versions,
        |version| {
            let request = ConsumerGroupHeartbeatRequest::default()
                .with_group_id(consumer(version))
                .with_rebalance_timeout_ms(10_000)
                .with_subscribed_topic_names(Some(vec![name("t")]))
                .with_topic_partitions(Some(vec![]));
            match version {
                0 => request,
                _ => request
                    .with_member_id(text("m"))
                    .with_subscribed_topic_regex(Some(text("t+"))),
            }
        },
        |version, response| {
            assert_eq!(
                (response.error_code, response.member_epoch),
                (0, 1),
                "{version}"
            );
            assert!(!response.assignment.unwrap().topic_partitions.is_empty());
        },
    );
    every_version::<ConsumerGroupDescribeRequest>(
        client,
        versions,
        |version| ConsumerGroupDescribeRequest::default().with_group_ids(vec![consumer(version)]),
        |version, response| {
            let member = &response.groups[0].members[0];
            let expected = if version == 0 { -1 } else { 1 };
            assert_eq!((member.member_epoch, member.member_type), (1, expected));
        },
    );
    every_version::<OffsetDeleteRequest>(
        client,
        versions,
        |_| {
            let topic = offset_delete_request::OffsetDeleteRequestTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![Default::default()]);
            OffsetDeleteRequest::default()
                .with_group_id(group())
                .with_topics(vec![topic])
        },
        |_, response| assert_eq!(response.topics[0].partitions[0].error_code, 0),
    );
    every_version::<DeleteGroupsRequest>(
        client,
        versions,
        |version| {
            let id = if version == 0 { "join0" } else { "none" };
            DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(id))])
        },
        |version, response| {
            assert_eq!(
                response.results[0].error_code,
                if version == 0 { 68 } else { 69 }
            )
        },
    );
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_so_that_everybody_can_read_it() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let mut frame = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(18)
        .with_request_api_version(99)
        .with_correlation_id(5);
    header.encode(&mut frame, 2).unwrap();
    client.send_frame(&frame);
    let mut answer = client.frame().unwrap();
    assert_eq!(
        ResponseHeader::decode(&mut answer, 0)
            .unwrap()
            .correlation_id,
        5
    );
    let versions = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
    assert_eq!(versions.error_code, 35);
    assert!(
        versions
            .api_keys
            .iter()
            .any(|api| (api.api_key, api.min_version, api.max_version) == (0, 0, 13))
    );
    // And the connection goes on.
    assert_eq!(
        client
            .call(
                3,
                &ApiVersionsRequest::default()
                    .with_client_software_name(text("a"))
                    .with_client_software_version(text("1"))
            )
            .error_code,
        0
    );
}

#[test]
fn whoever_breaks_the_rules_is_left() {
    let gateway = Gateway::start_with(&[("socket.request.max.bytes", "100000")]);
    let frame = |key: i16, version: i16, body: &[u8]| {
        let mut frame = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version);
        header.encode(&mut frame, 1).unwrap();
        frame.extend_from_slice(body);
        frame
    };
    let left = |bytes: &[u8]| {
        let mut client = gateway.connect();
        client.stream.write_all(bytes).unwrap();
        assert!(client.frame().is_none(), "{bytes:?}");
    };
    left(&i32::MAX.to_be_bytes());
    left(&(-1_i32).to_be_bytes());
    left(&100_001_i32.to_be_bytes());
    left(b"GET / HTTP/1.1\r\n\r\n");
    for (key, version, body) in [
        (999, 0, &[][..]),
        (3, 99, &[]),
        (0, 2, &[]),
        (3, 0, &i32::MAX.to_be_bytes()),
        (0, 3, &[0; 3]),
        (1, 4, &[0; 10]),
    ] {
        let mut client = gateway.connect();
        client.send_frame(&frame(key, version, body));
        assert!(client.frame().is_none(), "{key} {version}");
    }
    // An empty frame has no header.
    left(&0_i32.to_be_bytes());
    // The others are served as before.
    let mut client = gateway.connect();
    assert_eq!(client.call(0, &ApiVersionsRequest::default()).error_code, 0);
}

#[test]
fn half_a_frame_holds_up_nobody() {
    let gateway = Gateway::start();
    let mut silent: Vec<Connection> = (0..20).map(|_| gateway.connect()).collect();
    for client in &mut silent {
        client.stream.write_all(&[0, 0, 1, 0, 0, 3]).unwrap();
    }
    let mut client = gateway.connect();
    client.produce("t", 0, batch(&["x"]));
}

#[test]
fn clients_are_told_the_address_they_came_to_or_the_advertised_one() {
    let brokers = |gateway: &Gateway| {
        let metadata = gateway.connect().call(12, &MetadataRequest::default());
        metadata
            .brokers
            .into_iter()
            .map(|broker| (broker.host.to_string(), broker.port))
            .collect::<Vec<_>>()
    };
    let gateway = Gateway::start();
    assert_eq!(
        brokers(&gateway),
        [("127.0.0.1".to_owned(), i32::from(gateway.address.port()))]
    );
    let gateway =
        Gateway::start_with(&[("advertised.listeners", "PLAINTEXT://broker.example:19092")]);
    assert_eq!(brokers(&gateway), [("broker.example".to_owned(), 19092)]);
}

#[test]
fn topics_are_created_by_asking_only_where_both_allow_it() {
    let wanted = |allow| {
        let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(name("auto")));
        MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(allow)
    };
    let gateway = Gateway::start_with(&[("num.partitions", "3")]);
    let mut client = gateway.connect();
    assert_eq!(client.call(12, &wanted(false)).topics[0].error_code, 3);
    let created = client.call(12, &wanted(true)).topics.remove(0);
    assert_eq!((created.error_code, created.partitions.len()), (0, 3));
    let invalid = metadata_request::MetadataRequestTopic::default().with_name(Some(name("a b")));
    let invalid = MetadataRequest::default()
        .with_topics(Some(vec![invalid]))
        .with_allow_auto_topic_creation(true);
    assert_eq!(client.call(12, &invalid).topics[0].error_code, 17);
    let gateway = Gateway::start_with(&[("auto.create.topics.enable", "false")]);
    assert_eq!(
        gateway.connect().call(12, &wanted(true)).topics[0].error_code,
        3
    );
}

#[test]
fn features_tell_what_is_in_use() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    for version in [3, 4] {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text("t"))
            .with_client_software_version(text("1"));
        let told = client.call(version, &request);
        assert_eq!(told.finalized_features_epoch, 0);
        for (feature, level) in [("group.version", 1), ("transaction.version", 2)] {
            let mut finalized = told.finalized_features.iter();
            let finalized = finalized.find(|one| one.name.as_str() == feature);
            let finalized = finalized.map(|one| (one.min_version_level, one.max_version_level));
            assert_eq!(finalized, Some((level, level)));
            let mut supported = told.supported_features.iter();
            let supported = supported.find(|one| one.name.as_str() == feature);
            let supported = supported.map(|one| (one.min_version, one.max_version));
            // Older clients take a level of 0 for an error.
            assert_eq!(supported, (version == 4).then_some((0, level)));
        }
    }
    let old = client.call(2, &ApiVersionsRequest::default());
    assert!(old.finalized_features.is_empty());
}

#[test]
fn a_stop_ends_waiting_and_answers_what_is_under_way() {
    let mut gateway = Gateway::start();
    let mut client = gateway.connect();
    client.call(
        12,
        &MetadataRequest::default()
            .with_topics(Some(vec![
                metadata_request::MetadataRequestTopic::default().with_name(Some(name("t"))),
            ]))
            .with_allow_auto_topic_creation(true),
    );
    let partition = fetch_request::FetchPartition::default().with_partition_max_bytes(1000);
    let topic = fetch_request::FetchTopic::default()
        .with_topic(name("t"))
        .with_partitions(vec![partition]);
    let fetch = FetchRequest::default()
        .with_max_bytes(1000)
        .with_min_bytes(1)
        .with_max_wait_ms(300_000)
        .with_topics(vec![topic]);
    client.send(12, &fetch);
    gateway.stop();
    // Whether it was read before the stop or not: the connection ends, and does not wait five minutes.
    let _ = client.frame();
    assert!(client.frame().is_none());
}

#[test]
fn bytes_behind_a_request_are_passed_over() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let mut frame = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(3)
        .with_request_api_version(12);
    header.encode(&mut frame, 2).unwrap();
    MetadataRequest::default()
        .with_topics(None)
        .encode(&mut frame, 12)
        .unwrap();
    frame.extend_from_slice(&[0, 0, 0]);
    client.send_frame(&frame);
    let mut answer = client.frame().expect("an answer");
    ResponseHeader::decode(&mut answer, 1).unwrap();
    let topics = MetadataResponse::decode(&mut answer, 12).unwrap().topics;
    assert!(topics.iter().all(|topic| topic.is_internal));
}
