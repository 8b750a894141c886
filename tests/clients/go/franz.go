package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

type franz struct{ bootstrap string }

func (franz franz) client(options ...kgo.Opt) (*kgo.Client, context.Context, func(), error) {
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(franz.bootstrap))...)
	if err != nil {
		return nil, nil, nil, err
	}
	context, cancel := context.WithTimeout(context.Background(), timeout)
	return client, context, func() { cancel(); client.Close() }, nil
}

// Kafka's number of an error; 0 for none.
func franzCode(err error) int16 {
	var known *kerr.Error
	if errors.As(err, &known) {
		return known.Code
	}
	fail(err)
	return 0
}

func (franz franz) produce(topic, codec string, records []record) error {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	client, context, done, err := franz.client(kgo.ProducerBatchCompression(codecs[codec]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer done()
	var sent []*kgo.Record
	for _, one := range records {
		record := &kgo.Record{Topic: topic, Key: one.key, Value: one.value}
		for _, header := range one.headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: header.name, Value: header.value})
		}
		sent = append(sent, record)
	}
	return client.ProduceSync(context, sent...).FirstErr()
}

func (franz franz) consume(topic string, count int) error {
	from := map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}
	client, context, done, err := franz.client(kgo.ConsumePartitions(from))
	if err != nil {
		return err
	}
	defer done()
	for count > 0 {
		fetches := client.PollFetches(context)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(found *kgo.Record) {
			one := record{key: found.Key, value: found.Value}
			for _, found := range found.Headers {
				one.headers = append(one.headers, header{found.Key, found.Value})
			}
			print(one)
			count--
		})
	}
	return nil
}

func (franz franz) group(topic, group string, leave <-chan struct{}) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(franz.bootstrap), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(heartbeatInterval), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll())
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	polling, stop := context.WithCancel(context.Background())
	go func() {
		<-leave
		stop()
	}()
	for polling.Err() == nil {
		fetches := client.PollFetches(polling)
		if err := fetches.Err(); err != nil && polling.Err() == nil {
			return err
		}
		fetches.EachRecord(func(found *kgo.Record) { fmt.Println(found.Partition, found.Offset) })
		if err := client.CommitUncommittedOffsets(context.Background()); err != nil {
			return err
		}
		client.AllowRebalance()
	}
	return nil
}

func (franz franz) offsets(topic, group string) error {
	client, context, done, err := franz.client()
	if err != nil {
		return err
	}
	defer done()
	admin := kadm.NewClient(client)
	for _, one := range []struct {
		name string
		list func() (kadm.ListedOffsets, error)
	}{
		{"earliest", func() (kadm.ListedOffsets, error) { return admin.ListStartOffsets(context, topic) }},
		{"latest", func() (kadm.ListedOffsets, error) { return admin.ListEndOffsets(context, topic) }},
		{"at 1004", func() (kadm.ListedOffsets, error) { return admin.ListOffsetsAfterMilli(context, 1004, topic) }},
	} {
		listed, err := one.list()
		if err != nil {
			return err
		}
		found, _ := listed.Lookup(topic, 0)
		fmt.Printf("%s: %d\n", one.name, found.Offset)
	}
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: 7, LeaderEpoch: -1, Metadata: "note"})
	if err := admin.CommitAllOffsets(context, group, offsets); err != nil {
		return err
	}
	fetched, err := admin.FetchOffsets(context, group)
	if err != nil {
		return err
	}
	found, _ := fetched.Lookup(topic, 0)
	fmt.Printf("committed: %d %s\n", found.At, found.Metadata)
	return nil
}

func (franz franz) admin(topic string) error {
	client, context, done, err := franz.client()
	if err != nil {
		return err
	}
	defer done()
	admin := kadm.NewClient(client)
	partitions := func() int {
		listed, err := admin.ListTopics(context, topic)
		fail(err)
		return len(listed[topic].Partitions)
	}
	create := func(name string, replication int16, configs map[string]*string) int16 {
		_, err := admin.CreateTopic(context, 3, replication, configs, name)
		return franzCode(err)
	}
	fmt.Println("create:", create(topic, 1, map[string]*string{"retention.ms": kadm.StringPtr("60000")}))
	fmt.Println("create again:", create(topic, 1, nil))
	fmt.Println("create a bad name:", create("a b", 1, nil))
	fmt.Println("create with 3 replicas:", create(topic+"-3", 3, nil))
	fmt.Println("create with an unknown config:", create(topic+"-c", 1, map[string]*string{"no.such": kadm.StringPtr("1")}))
	fmt.Println("partitions:", partitions())
	added, err := admin.UpdatePartitions(context, 5, topic)
	fail(err)
	fail(added.Error())
	fmt.Println("partitions:", partitions())
	fewer, err := admin.UpdatePartitions(context, 2, topic)
	fail(err)
	fmt.Println("fewer partitions:", franzCode(fewer.Error()))
	altered, err := admin.AlterTopicConfigs(context, []kadm.AlterConfig{{Name: "retention.ms", Value: kadm.StringPtr("70000")}}, topic)
	fail(err)
	fail(altered[0].Err)
	configs, err := admin.DescribeTopicConfigs(context, topic)
	fail(err)
	for _, one := range configs[0].Configs {
		if one.Key == "retention.ms" {
			fmt.Println("retention.ms:", one.MaybeValue())
		}
	}
	for _, step := range []string{"delete", "delete again"} {
		deleted, err := admin.DeleteTopics(context, topic)
		fail(err)
		fmt.Printf("%s: %d\n", step, franzCode(deleted.Error()))
	}
	return nil
}

func (franz franz) refused(topic string) error {
	at := map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(1000)}}
	client, context, done, err := franz.client(kgo.ConsumePartitions(at), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer done()
	large := &kgo.Record{Topic: topic, Value: make([]byte, 5000)}
	fmt.Println("too large:", franzCode(client.ProduceSync(context, large).FirstErr()))
	fmt.Println("out of range:", franzCode(client.PollFetches(context).Err()))
	return nil
}

func (franz franz) transactions(topic, group string) error {
	output := topic + "-out"
	producer, context, done, err := franz.client(kgo.TransactionalID(output), kgo.DefaultProduceTopic(output))
	if err != nil {
		return err
	}
	defer done()
	write := func(client *kgo.Client, value string, end kgo.TransactionEndTry) error {
		fail(client.BeginTransaction())
		fail(client.ProduceSync(context, kgo.StringRecord(value)).FirstErr())
		return client.EndTransaction(context, end)
	}
	fail(write(producer, "kept", kgo.TryCommit))
	fail(write(producer, "dropped", kgo.TryAbort))
	session, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(franz.bootstrap), kgo.TransactionalID(topic), kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(), kgo.DefaultProduceTopic(output))
	if err != nil {
		return err
	}
	for copied := 0; copied < 10; {
		fetches := session.PollFetches(context)
		fail(fetches.Err())
		fail(session.Begin())
		fetches.EachRecord(func(found *kgo.Record) {
			session.Produce(context, kgo.SliceRecord(found.Value), func(_ *kgo.Record, err error) { fail(err) })
		})
		committed, err := session.End(context, kgo.TryCommit)
		fail(err)
		if committed {
			copied += fetches.NumRecords()
		}
	}
	session.Close()

	fail(producer.BeginTransaction())
	fail(producer.ProduceSync(context, kgo.StringRecord("fenced")).FirstErr())
	successor, _, ended, err := franz.client(kgo.TransactionalID(output), kgo.DefaultProduceTopic(output))
	if err != nil {
		return err
	}
	defer ended()
	if _, _, err := successor.ProducerID(context); err != nil {
		return err
	}
	fmt.Println("fenced:", franzCode(producer.EndTransaction(context, kgo.TryCommit)))
	fail(write(successor, "successor", kgo.TryCommit))

	from := map[string]map[int32]kgo.Offset{output: {0: kgo.NewOffset().AtStart()}}
	reader, _, read, err := franz.client(kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	defer read()
	var found []string
	for len(found) == 0 || found[len(found)-1] != "successor" {
		fetches := reader.PollFetches(context)
		fail(fetches.Err())
		fetches.EachRecord(func(one *kgo.Record) { found = append(found, string(one.Value)) })
	}
	fmt.Println("read:", strings.Join(found, " "))
	described, err := kadm.NewClient(reader).DescribeTransactions(context, output)
	if err != nil {
		return err
	}
	fmt.Println("state:", described[output].State)
	return nil
}

// The quick start of its README.
func (franz franz) start(topic string) error {
	seeds := []string{franz.bootstrap}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(seeds...),
		kgo.ConsumerGroup("my-group-identifier"),
		kgo.ConsumeTopics(topic),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx := context.Background()
	var wg sync.WaitGroup
	wg.Add(1)
	record := &kgo.Record{Topic: topic, Value: []byte("bar")}
	cl.Produce(ctx, record, func(_ *kgo.Record, err error) {
		defer wg.Done()
		fail(err)
	})
	wg.Wait()
	for {
		fetches := cl.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			return fmt.Errorf("%v", errs)
		}
		iter := fetches.RecordIter()
		for !iter.Done() {
			fmt.Println(string(iter.Next().Value))
			return nil
		}
	}
}
