package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

type saramaClient struct {
	brokers []string
	config  *sarama.Config
}

func newSarama(bootstrap string) saramaClient {
	config := sarama.NewConfig()
	config.Version = sarama.V4_1_0_0
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Return.Errors = true
	return saramaClient{[]string{bootstrap}, config}
}

// Kafka's number of an error; 0 for none.
func saramaCode(err error) int16 {
	var known sarama.KError
	if errors.As(err, &known) {
		return int16(known)
	}
	fail(err)
	return 0
}

// An encoder for null, which sarama writes where a key or value is missing altogether.
func encoder(bytes []byte) sarama.Encoder {
	if bytes == nil {
		return nil
	}
	return sarama.ByteEncoder(bytes)
}

func (client saramaClient) produce(topic, codec string, records []record) error {
	client.config.Producer.Compression = map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}[codec]
	producer, err := sarama.NewSyncProducer(client.brokers, client.config)
	if err != nil {
		return err
	}
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for _, one := range records {
		message := &sarama.ProducerMessage{Topic: topic, Partition: 0, Key: encoder(one.key), Value: encoder(one.value)}
		for _, header := range one.headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.name), Value: header.value})
		}
		messages = append(messages, message)
	}
	return producer.SendMessages(messages)
}

func (client saramaClient) consume(topic string, count int) error {
	consumer, err := sarama.NewConsumer(client.brokers, client.config)
	if err != nil {
		return err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer partition.Close()
	end := time.After(timeout)
	for ; count > 0; count-- {
		select {
		case found := <-partition.Messages():
			one := record{key: found.Key, value: found.Value}
			for _, found := range found.Headers {
				one.headers = append(one.headers, header{string(found.Key), found.Value})
			}
			print(one)
		case <-end:
			return errors.New("not all records came in time")
		}
	}
	return nil
}

// A member's handler of what it is assigned.
type member struct{}

func (member) Setup(sarama.ConsumerGroupSession) error { return nil }

func (member) Cleanup(session sarama.ConsumerGroupSession) error {
	session.Commit()
	return nil
}

func (member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case found, open := <-claim.Messages():
			if !open {
				return nil
			}
			fmt.Println(found.Partition, found.Offset)
			session.MarkMessage(found, "")
		case <-session.Context().Done():
			return nil
		}
	}
}

func (client saramaClient) group(topic, group string, leave <-chan struct{}) error {
	client.config.Consumer.Group.Session.Timeout = sessionTimeout
	client.config.Consumer.Group.Heartbeat.Interval = heartbeatInterval
	client.config.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	consumers, err := sarama.NewConsumerGroup(client.brokers, group, client.config)
	if err != nil {
		return err
	}
	go func() {
		for err := range consumers.Errors() {
			fail(err)
		}
	}()
	consuming, stop := context.WithCancel(context.Background())
	go func() {
		<-leave
		stop()
	}()
	for consuming.Err() == nil {
		if err := consumers.Consume(consuming, []string{topic}, member{}); err != nil {
			return err
		}
	}
	return consumers.Close()
}

func (client saramaClient) offsets(topic, group string) error {
	connected, err := sarama.NewClient(client.brokers, client.config)
	if err != nil {
		return err
	}
	defer connected.Close()
	for _, one := range []struct {
		name string
		time int64
	}{{"earliest", sarama.OffsetOldest}, {"latest", sarama.OffsetNewest}, {"at 1004", 1004}} {
		offset, err := connected.GetOffset(topic, 0, one.time)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d\n", one.name, offset)
	}
	manager, err := sarama.NewOffsetManagerFromClient(group, connected)
	if err != nil {
		return err
	}
	partition, err := manager.ManagePartition(topic, 0)
	if err != nil {
		return err
	}
	partition.MarkOffset(7, "note")
	manager.Commit()
	fail(partition.Close())
	fail(manager.Close())
	admin, err := sarama.NewClusterAdminFromClient(connected)
	if err != nil {
		return err
	}
	found, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0}})
	if err != nil {
		return err
	}
	block := found.GetBlock(topic, 0)
	fmt.Printf("committed: %d %s\n", block.Offset, block.Metadata)
	return nil
}

func (client saramaClient) admin(topic string) error {
	admin, err := sarama.NewClusterAdmin(client.brokers, client.config)
	if err != nil {
		return err
	}
	defer admin.Close()
	create := func(name string, replication int16, configs map[string]string) int16 {
		detail := &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: replication, ConfigEntries: map[string]*string{}}
		for name, value := range configs {
			detail.ConfigEntries[name] = &value
		}
		return saramaCode(admin.CreateTopic(name, detail, false))
	}
	partitions := func() int {
		described, err := admin.DescribeTopics([]string{topic})
		fail(err)
		return len(described[0].Partitions)
	}
	fmt.Println("create:", create(topic, 1, map[string]string{"retention.ms": "60000"}))
	fmt.Println("create again:", create(topic, 1, nil))
	fmt.Println("create a bad name:", create("a b", 1, nil))
	fmt.Println("create with 3 replicas:", create(topic+"-3", 3, nil))
	fmt.Println("create with an unknown config:", create(topic+"-c", 1, map[string]string{"no.such": "1"}))
	fmt.Println("partitions:", partitions())
	fail(admin.CreatePartitions(topic, 5, nil, false))
	fmt.Println("partitions:", partitions())
	fmt.Println("fewer partitions:", saramaCode(admin.CreatePartitions(topic, 2, nil, false)))
	value := "70000"
	fail(admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
	}, false))
	configs, err := admin.DescribeConfig(sarama.ConfigResource{
		Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"},
	})
	if err != nil {
		return err
	}
	fmt.Println("retention.ms:", configs[0].Value)
	fmt.Println("delete:", saramaCode(admin.DeleteTopic(topic)))
	fmt.Println("delete again:", saramaCode(admin.DeleteTopic(topic)))
	return nil
}

func (client saramaClient) refused(topic string) error {
	producer, err := sarama.NewSyncProducer(client.brokers, client.config)
	if err != nil {
		return err
	}
	defer producer.Close()
	_, _, err = producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(make([]byte, 5000))})
	fmt.Println("too large:", saramaCode(err))
	consumer, err := sarama.NewConsumer(client.brokers, client.config)
	if err != nil {
		return err
	}
	defer consumer.Close()
	_, err = consumer.ConsumePartition(topic, 0, 1000)
	fmt.Println("out of range:", saramaCode(err))
	return nil
}

func (client saramaClient) transactions(topic, group string) error {
	output := topic + "-out"
	client.config.Producer.Idempotent = true
	client.config.Producer.Transaction.ID = output
	client.config.Net.MaxOpenRequests = 1
	client.config.Consumer.IsolationLevel = sarama.ReadCommitted
	producer, err := sarama.NewSyncProducer(client.brokers, client.config)
	if err != nil {
		return err
	}
	send := func(producer sarama.SyncProducer, value string) {
		_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: output, Value: sarama.StringEncoder(value)})
		fail(err)
	}
	fail(producer.BeginTxn())
	send(producer, "kept")
	fail(producer.CommitTxn())
	fail(producer.BeginTxn())
	send(producer, "dropped")
	fail(producer.AbortTxn())

	read := func(topic string, until func([]string) bool) (found []string) {
		consumer, err := sarama.NewConsumer(client.brokers, client.config)
		fail(err)
		defer consumer.Close()
		partition, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
		fail(err)
		defer partition.Close()
		end := time.After(timeout)
		for !until(found) {
			select {
			case one := <-partition.Messages():
				found = append(found, string(one.Value))
			case <-end:
				fail(fmt.Errorf("not all records came in time, but %v", found))
			}
		}
		return found
	}
	fail(producer.BeginTxn())
	for _, value := range read(topic, func(found []string) bool { return len(found) == 10 }) {
		send(producer, value)
	}
	offsets := map[string][]*sarama.PartitionOffsetMetadata{topic: {{Partition: 0, Offset: 10}}}
	fail(producer.AddOffsetsToTxn(offsets, group))
	fail(producer.CommitTxn())

	fail(producer.BeginTxn())
	send(producer, "fenced")
	successor, err := sarama.NewSyncProducer(client.brokers, client.config)
	if err != nil {
		return err
	}
	fmt.Println("fenced:", saramaCode(producer.CommitTxn()))
	fail(successor.BeginTxn())
	send(successor, "successor")
	fail(successor.CommitTxn())
	fail(successor.Close())
	found := read(output, func(found []string) bool { return len(found) > 0 && found[len(found)-1] == "successor" })
	fmt.Println("read:", strings.Join(found, " "))
	return nil
}

// The examples of SyncProducer and Consumer in its documentation.
func (client saramaClient) start(topic string) error {
	producer, err := sarama.NewSyncProducer(client.brokers, nil)
	if err != nil {
		return err
	}
	msg := &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder("testing 123")}
	if _, _, err := producer.SendMessage(msg); err != nil {
		return err
	}
	if err := producer.Close(); err != nil {
		return err
	}
	consumer, err := sarama.NewConsumer(client.brokers, sarama.NewConfig())
	if err != nil {
		return err
	}
	partitionConsumer, err := consumer.ConsumePartition(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	fmt.Println(string((<-partitionConsumer.Messages()).Value))
	if err := partitionConsumer.Close(); err != nil {
		return err
	}
	return consumer.Close()
}
