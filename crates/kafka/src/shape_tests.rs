//! The shapes against what `kafka-protocol` writes, in every version that is served; and counts that lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::ops::RangeBounds;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};
use proptest::prelude::*;

use crate::api::{self, Api, Handler};
use crate::shape::{MAX_ITEMS, Shape, check};
use crate::wire::{Reader, WireError};

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn name() -> TopicName {
    TopicName(text("topic"))
}

fn group() -> GroupId {
    GroupId(text("g"))
}

fn transaction() -> TransactionalId {
    TransactionalId(text("t"))
}

/// A request that has something more in these versions.
fn since<R>(
    version: i16,
    versions: impl RangeBounds<i16>,
    request: R,
    with: impl FnOnce(R) -> R,
) -> R {
    match versions.contains(&version) {
        true => with(request),
        false => request,
    }
}

/// An API whose requests are checked along a shape, and that shape.
fn shaped(key: i16) -> (&'static Api, Shape) {
    let api = api::find(key).unwrap();
    match api.handler {
        Handler::Control(shape, _) => (api, shape),
        _ => panic!("{} has no shape", api.name),
    }
}

/// Looks at bytes as at a request of that version.
fn look(key: i16, bytes: &Bytes, version: i16) -> Result<usize, WireError> {
    let (api, shape) = shaped(key);
    check(Reader::new(bytes, api.is_flexible(version)), shape, version)
}

/// Checks a request along its shape in each of its versions; `make` fills what the version has.
fn agrees<R: Encodable + HeaderVersion>(key: i16, make: impl Fn(i16) -> R) {
    let (api, _) = shaped(key);
    for version in api.versions.0..=api.versions.1 {
        let mut bytes = BytesMut::new();
        make(version)
            .encode(&mut bytes, version)
            .unwrap_or_else(|error| panic!("{} {version}: {error}", api.name));
        let bytes = bytes.freeze();
        let flexible = R::header_version(version) == 2;
        assert_eq!(flexible, api.is_flexible(version), "{} {version}", api.name);
        let look = |bytes: &Bytes| look(key, bytes, version);
        assert_eq!(look(&bytes), Ok(0), "{} {version}", api.name);
        // What comes after it is told, and nothing may be missing.
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert_eq!(look(&longer), Ok(1), "{} {version}", api.name);
        if !bytes.is_empty() {
            assert!(
                look(&bytes.slice(..bytes.len() - 1)).is_err(),
                "{} {version}",
                api.name
            );
        }
    }
}

#[test]
fn shapes_are_those_of_the_messages() {
    use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    agrees(2, |version| {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(1)
            .with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(name())
            .with_partitions(vec![partition; 2]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic; 2]);
        since(version, 10.., request, |one| one.with_timeout_ms(7))
    });
    agrees(3, |version| {
        use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
        let topic = MetadataRequestTopic::default().with_name(Some(name()));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic; 3]))
            .with_allow_auto_topic_creation(true);
        since(version, 8..=10, request, |one| {
            one.with_include_cluster_authorized_operations(true)
        })
    });
    agrees(8, |version| {
        use kafka_protocol::messages::offset_commit_request::{
            OffsetCommitRequestPartition, OffsetCommitRequestTopic,
        };
        let partition =
            OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("m")));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name())
            .with_partitions(vec![partition; 2]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_topics(vec![topic; 2]);
        since(version, 7.., request, |one| {
            one.with_group_instance_id(Some(text("i")))
        })
    });
    agrees(9, |version| {
        use kafka_protocol::messages::offset_fetch_request::*;
        if version < 8 {
            let topic = OffsetFetchRequestTopic::default()
                .with_name(name())
                .with_partition_indexes(vec![1, 2]);
            return OffsetFetchRequest::default()
                .with_group_id(group())
                .with_topics(Some(vec![topic; 2]));
        }
        let topic = OffsetFetchRequestTopics::default()
            .with_name(name())
            .with_partition_indexes(vec![1, 2]);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(group())
            .with_topics(Some(vec![topic; 2]));
        OffsetFetchRequest::default().with_groups(vec![group; 2])
    });
    agrees(10, |version| {
        let request = FindCoordinatorRequest::default();
        if version < 4 {
            request.with_key(text("g"))
        } else {
            request.with_coordinator_keys(vec![text("g"); 2])
        }
    });
    agrees(11, |version| {
        use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"m"));
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_protocols(vec![protocol; 2]);
        let request = since(version, 5.., request, |one| {
            one.with_group_instance_id(Some(text("i")))
        });
        since(version, 8.., request, |one| {
            one.with_reason(Some(text("r")))
        })
    });
    agrees(12, |version| {
        let request = HeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(text("m"));
        since(version, 3.., request, |one| {
            one.with_group_instance_id(Some(text("i")))
        })
    });
    agrees(13, |version| {
        use kafka_protocol::messages::leave_group_request::MemberIdentity;
        let request = LeaveGroupRequest::default().with_group_id(group());
        if version < 3 {
            return request.with_member_id(text("m"));
        }
        let member = MemberIdentity::default()
            .with_member_id(text("m"))
            .with_group_instance_id(Some(text("i")));
        let member = since(version, 5.., member, |one| one.with_reason(Some(text("r"))));
        request.with_members(vec![member; 2])
    });
    agrees(14, |version| {
        use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
        let one = SyncGroupRequestAssignment::default()
            .with_member_id(text("m"))
            .with_assignment(Bytes::from_static(b"a"));
        let request = SyncGroupRequest::default()
            .with_group_id(group())
            .with_assignments(vec![one; 2]);
        let request = since(version, 3.., request, |one| {
            one.with_group_instance_id(Some(text("i")))
        });
        since(version, 5.., request, |one| {
            one.with_protocol_type(Some(text("t")))
                .with_protocol_name(Some(text("n")))
        })
    });
    agrees(15, |_| {
        DescribeGroupsRequest::default().with_groups(vec![group(); 2])
    });
    agrees(16, |version| {
        let request = ListGroupsRequest::default();
        let request = since(version, 4.., request, |one| {
            one.with_states_filter(vec![text("Stable")])
        });
        since(version, 5.., request, |one| {
            one.with_types_filter(vec![text("classic")])
        })
    });
    agrees(68, |version| {
        use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
        let partitions = TopicPartitions::default().with_partitions(vec![1, 2]);
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(text("m"))
            .with_instance_id(Some(text("i")))
            .with_subscribed_topic_names(Some(vec![name(); 2]))
            .with_server_assignor(Some(text("uniform")))
            .with_topic_partitions(Some(vec![partitions; 2]));
        since(version, 1.., request, |one| {
            one.with_subscribed_topic_regex(Some(text("t.*")))
        })
    });
    agrees(69, |_| {
        ConsumerGroupDescribeRequest::default().with_group_ids(vec![group(); 2])
    });
    agrees(18, |version| {
        let request = ApiVersionsRequest::default();
        since(version, 3.., request, |one| {
            one.with_client_software_name(text("c"))
                .with_client_software_version(text("1"))
        })
    });
}

#[test]
fn shapes_of_admin_requests_are_those_of_the_messages() {
    agrees(19, |_| {
        use kafka_protocol::messages::create_topics_request::*;
        let assignment =
            CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1); 2]);
        let config = CreatableTopicConfig::default()
            .with_name(text("n"))
            .with_value(Some(text("v")));
        let topic = CreatableTopic::default()
            .with_name(name())
            .with_assignments(vec![assignment; 2])
            .with_configs(vec![config; 2]);
        CreateTopicsRequest::default().with_topics(vec![topic; 2])
    });
    agrees(20, |version| {
        use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
        if version < 6 {
            return DeleteTopicsRequest::default().with_topic_names(vec![name(); 2]);
        }
        let topic = DeleteTopicState::default().with_name(Some(name()));
        DeleteTopicsRequest::default().with_topics(vec![topic; 2])
    });
    agrees(21, |_| {
        use kafka_protocol::messages::delete_records_request::*;
        let partition = DeleteRecordsPartition::default().with_offset(3);
        let topic = DeleteRecordsTopic::default()
            .with_name(name())
            .with_partitions(vec![partition; 2]);
        DeleteRecordsRequest::default().with_topics(vec![topic; 2])
    });
    agrees(22, |_| {
        InitProducerIdRequest::default().with_transactional_id(Some(transaction()))
    });
    agrees(24, |version| {
        use kafka_protocol::messages::add_partitions_to_txn_request::*;
        let topic = AddPartitionsToTxnTopic::default()
            .with_name(name())
            .with_partitions(vec![1, 2]);
        let id = transaction();
        if version < 4 {
            return AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(id)
                .with_v3_and_below_topics(vec![topic; 2]);
        }
        let one = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(id)
            .with_topics(vec![topic; 2]);
        AddPartitionsToTxnRequest::default().with_transactions(vec![one; 2])
    });
    agrees(25, |_| {
        AddOffsetsToTxnRequest::default()
            .with_transactional_id(transaction())
            .with_group_id(group())
    });
    agrees(26, |_| {
        EndTxnRequest::default()
            .with_transactional_id(transaction())
            .with_committed(true)
    });
    agrees(28, |version| {
        use kafka_protocol::messages::txn_offset_commit_request::*;
        let partition =
            TxnOffsetCommitRequestPartition::default().with_committed_metadata(Some(text("m")));
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(name())
            .with_partitions(vec![partition; 2]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(transaction())
            .with_group_id(group())
            .with_topics(vec![topic; 2]);
        since(version, 3.., request, |one| {
            one.with_member_id(text("m"))
                .with_group_instance_id(Some(text("i")))
        })
    });
    agrees(61, |_| {
        use kafka_protocol::messages::describe_producers_request::TopicRequest;
        let topic = TopicRequest::default()
            .with_name(name())
            .with_partition_indexes(vec![1, 2]);
        DescribeProducersRequest::default().with_topics(vec![topic; 2])
    });
    agrees(65, |_| {
        let ids = vec![transaction(); 2];
        DescribeTransactionsRequest::default().with_transactional_ids(ids)
    });
    agrees(66, |version| {
        let request = ListTransactionsRequest::default()
            .with_state_filters(vec![text("Ongoing"); 2])
            .with_producer_id_filters(vec![ProducerId(1); 2]);
        let request = since(version, 1.., request, |one| one.with_duration_filter(5));
        since(version, 2.., request, |one| {
            one.with_transactional_id_pattern(Some(text("p")))
        })
    });
    agrees(23, |_| {
        use kafka_protocol::messages::offset_for_leader_epoch_request::*;
        let partition = OffsetForLeaderPartition::default().with_leader_epoch(1);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(name())
            .with_partitions(vec![partition; 2]);
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic; 2])
    });
    agrees(29, |_| {
        DescribeAclsRequest::default()
            .with_resource_name_filter(Some(text("n")))
            .with_principal_filter(Some(text("p")))
            .with_pattern_type_filter(3)
            .with_host_filter(Some(text("h")))
    });
    agrees(30, |_| {
        use kafka_protocol::messages::create_acls_request::AclCreation;
        let acl = AclCreation::default()
            .with_resource_name(text("n"))
            .with_principal(text("p"))
            .with_host(text("h"));
        CreateAclsRequest::default().with_creations(vec![acl; 2])
    });
    agrees(31, |_| {
        use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
        let filter = DeleteAclsFilter::default()
            .with_pattern_type_filter(3)
            .with_principal_filter(Some(text("p")));
        DeleteAclsRequest::default().with_filters(vec![filter; 2])
    });
    agrees(32, |_| {
        use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
        let resource = DescribeConfigsResource::default()
            .with_resource_name(text("n"))
            .with_configuration_keys(Some(vec![text("k"); 2]));
        DescribeConfigsRequest::default().with_resources(vec![resource; 2])
    });
    agrees(33, |_| {
        use kafka_protocol::messages::alter_configs_request::*;
        let config = AlterableConfig::default()
            .with_name(text("n"))
            .with_value(Some(text("v")));
        let resource = AlterConfigsResource::default()
            .with_resource_name(text("n"))
            .with_configs(vec![config; 2]);
        AlterConfigsRequest::default().with_resources(vec![resource; 2])
    });
    agrees(35, |_| {
        use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
        let topic = DescribableLogDirTopic::default()
            .with_topic(name())
            .with_partitions(vec![1, 2]);
        DescribeLogDirsRequest::default().with_topics(Some(vec![topic; 2]))
    });
    agrees(37, |_| {
        use kafka_protocol::messages::create_partitions_request::*;
        let assignment =
            CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1); 2]);
        let topic = CreatePartitionsTopic::default()
            .with_name(name())
            .with_assignments(Some(vec![assignment; 2]));
        CreatePartitionsRequest::default().with_topics(vec![topic; 2])
    });
    agrees(42, |_| {
        DeleteGroupsRequest::default().with_groups_names(vec![group(); 2])
    });
    agrees(43, |_| {
        use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
        let topic = TopicPartitions::default()
            .with_topic(name())
            .with_partitions(vec![1, 2]);
        ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic; 2]))
    });
    agrees(44, |_| {
        use kafka_protocol::messages::incremental_alter_configs_request::*;
        let config = AlterableConfig::default()
            .with_name(text("n"))
            .with_value(Some(text("v")));
        let resource = AlterConfigsResource::default()
            .with_resource_name(text("n"))
            .with_configs(vec![config; 2]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource; 2])
    });
    agrees(45, |_| {
        use kafka_protocol::messages::alter_partition_reassignments_request::*;
        let partition = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(1); 2]));
        let topic = ReassignableTopic::default()
            .with_name(name())
            .with_partitions(vec![partition; 2]);
        AlterPartitionReassignmentsRequest::default().with_topics(vec![topic; 2])
    });
    agrees(46, |_| {
        use kafka_protocol::messages::list_partition_reassignments_request::*;
        let topic = ListPartitionReassignmentsTopics::default()
            .with_name(name())
            .with_partition_indexes(vec![1, 2]);
        ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic; 2]))
    });
    agrees(47, |_| {
        use kafka_protocol::messages::offset_delete_request::*;
        let partition = OffsetDeleteRequestPartition::default();
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(name())
            .with_partitions(vec![partition; 2]);
        OffsetDeleteRequest::default().with_topics(vec![topic; 2])
    });
    agrees(60, |_| DescribeClusterRequest::default());
    agrees(75, |_| {
        use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
        let cursor = Cursor::default().with_topic_name(name());
        DescribeTopicPartitionsRequest::default()
            .with_topics(vec![TopicRequest::default().with_name(name()); 2])
            .with_cursor(Some(cursor))
    });
}

#[test]
fn a_count_that_lies_is_refused_before_anything_is_allocated() {
    let look = |bytes: &[u8], version| look(3, &Bytes::copy_from_slice(bytes), version);
    assert_eq!(look(&i32::MAX.to_be_bytes(), 0), Err(WireError::Count));
    assert_eq!(look(&(-2_i32).to_be_bytes(), 0), Err(WireError::Negative));
    assert_eq!(
        look(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0], 9),
        Err(WireError::Count)
    );
    assert_eq!(look(&[0xff; 8], 9), Err(WireError::Varint));
    // As many empty names as there are bytes would be an array of millions.
    let items = MAX_ITEMS + 1;
    let mut many = i32::try_from(items).unwrap().to_be_bytes().to_vec();
    many.resize(4 + 2 * items, 0);
    assert_eq!(look(&many, 0), Err(WireError::Items(MAX_ITEMS)));
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_passes_is_decoded(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        version in 0_i16..=13,
    ) {
        let bytes = Bytes::from(bytes);
        if look(3, &bytes, version).is_ok() {
            use kafka_protocol::protocol::Decodable;
            // It may still refuse text that is not UTF-8, and null where there may be none.
            let _ = MetadataRequest::decode(&mut bytes.clone(), version);
        }
    }
}
