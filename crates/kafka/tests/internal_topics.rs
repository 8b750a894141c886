//! `__consumer_offsets` and `__transaction_state`, as tools look for them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Connection, Gateway, batch, text};
use kafka_protocol::messages::*;
use uuid::Uuid;

/// The names and ids of what is listed.
fn listed(client: &mut Connection) -> Vec<(TopicName, Uuid)> {
    let all = client.call(12, &MetadataRequest::default().with_topics(None));
    let topic = |topic: metadata_response::MetadataResponseTopic| {
        assert!(topic.is_internal);
        assert_eq!(topic.partitions.len(), 50);
        (topic.name.unwrap(), topic.topic_id)
    };
    all.topics.into_iter().map(topic).collect()
}

#[test]
fn they_are_listed_and_described() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let all = listed(&mut client);
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["__consumer_offsets", "__transaction_state"]);
    let request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(60);
    let described: Vec<(Uuid, bool, usize)> = client
        .call(0, &request)
        .topics
        .iter()
        .map(|one| (one.topic_id, one.is_internal, one.partitions.len()))
        .collect();
    assert_eq!(described, [(all[0].1, true, 50), (all[1].1, true, 10)]);
    for (name, id) in all {
        let by_name =
            metadata_request::MetadataRequestTopic::default().with_name(Some(name.clone()));
        let by_id = metadata_request::MetadataRequestTopic::default()
            .with_name(None)
            .with_topic_id(id);
        let request = MetadataRequest::default().with_topics(Some(vec![by_name, by_id]));
        for found in client.call(12, &request).topics {
            assert_eq!((found.error_code, found.is_internal), (0, true));
            assert_eq!((found.name, found.topic_id), (Some(name.clone()), id));
        }
        let resource = describe_configs_request::DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(name.0)
            .with_configuration_keys(Some(vec![text("cleanup.policy")]));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let policy = client.call(4, &request).results.remove(0).configs.remove(0);
        assert_eq!(policy.value.unwrap().as_str(), "compact");
    }
}

#[test]
fn they_are_empty() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    for (name, id) in listed(&mut client) {
        for (partition, timestamp, expected) in [
            (0, -1, (0, 0)),
            (49, -2, (0, 0)),
            (0, 5, (0, -1)),
            (50, -1, (3, -1)),
        ] {
            let partition = list_offsets_request::ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_timestamp(timestamp);
            let topic = list_offsets_request::ListOffsetsTopic::default()
                .with_name(name.clone())
                .with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_topics(vec![topic]);
            let found = client
                .call(9, &request)
                .topics
                .remove(0)
                .partitions
                .remove(0);
            assert_eq!((found.error_code, found.offset), expected);
        }
        for (partition, offset, code) in [(7, 0, 0), (7, 1, 1), (50, 0, 3)] {
            let partition = fetch_request::FetchPartition::default()
                .with_partition(partition)
                .with_fetch_offset(offset)
                .with_partition_max_bytes(1000);
            let topic = fetch_request::FetchTopic::default()
                .with_topic_id(id)
                .with_partitions(vec![partition]);
            let request = FetchRequest::default()
                .with_min_bytes(1)
                .with_max_wait_ms(50)
                .with_max_bytes(1000)
                .with_topics(vec![topic]);
            let found = client
                .call(13, &request)
                .responses
                .remove(0)
                .partitions
                .remove(0);
            assert_eq!(found.error_code, code);
            assert!(found.records.unwrap().is_empty());
        }
    }
}

#[test]
fn nobody_writes_to_them_or_changes_them() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    for (name, id) in listed(&mut client) {
        assert_eq!(
            client.produce(name.as_str(), 0, batch(&["x"])).error_code,
            17
        );
        let topic = create_topics_request::CreatableTopic::default()
            .with_name(name.clone())
            .with_num_partitions(1)
            .with_replication_factor(1);
        let created = client.call(7, &CreateTopicsRequest::default().with_topics(vec![topic]));
        assert_eq!(created.topics[0].error_code, 36);
        let topic = create_partitions_request::CreatePartitionsTopic::default()
            .with_name(name.clone())
            .with_count(60)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]);
        assert_eq!(client.call(3, &request).results[0].error_code, 17);
        let resource = alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(name.0.clone());
        let request = AlterConfigsRequest::default().with_resources(vec![resource]);
        assert_eq!(client.call(2, &request).responses[0].error_code, 17);
        let resource = incremental_alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(name.0.clone());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        assert_eq!(client.call(1, &request).responses[0].error_code, 17);
        let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(-1);
        let topic = delete_records_request::DeleteRecordsTopic::default()
            .with_name(name)
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
        assert_eq!(
            client.call(2, &request).topics[0].partitions[0].error_code,
            17
        );
        let by_id = delete_topics_request::DeleteTopicState::default()
            .with_name(None)
            .with_topic_id(id);
        let request = DeleteTopicsRequest::default().with_topics(vec![by_id]);
        assert_eq!(client.call(6, &request).responses[0].error_code, 17);
    }
    assert_eq!(listed(&mut client).len(), 2);
}
