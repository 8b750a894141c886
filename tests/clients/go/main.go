// Go's Kafka clients, driven by test_clients.py: produces records that come as JSON lines, or prints those it reads.
//
//	clients LIBRARY produce|consume BOOTSTRAP TOPIC CODEC|COUNT
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
)

const timeout = 30 * time.Second

// A record as the test has it; bytes are base64, and null is none.
type record struct {
	Key     *[]byte  `json:"key"`
	Value   *[]byte  `json:"value"`
	Headers []header `json:"headers"`
}

type header struct {
	Name  string  `json:"name"`
	Value *[]byte `json:"value"`
}

func optional(bytes []byte) *[]byte {
	if bytes == nil {
		return nil
	}
	return &bytes
}

func plain(bytes *[]byte) []byte {
	if bytes == nil {
		return nil
	}
	return *bytes
}

func main() {
	if len(os.Args) != 6 {
		fail(errors.New("usage: clients LIBRARY produce|consume BOOTSTRAP TOPIC CODEC|COUNT"))
	}
	library, verb, bootstrap, topic, last := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	switch verb {
	case "produce":
		fail(map[string]func(string, string, string, []record) error{
			"franz-go": produceFranz, "sarama": produceSarama,
		}[library](bootstrap, topic, last, read()))
	case "consume":
		count, err := strconv.Atoi(last)
		fail(err)
		fail(map[string]func(string, string, int) error{
			"franz-go": consumeFranz, "sarama": consumeSarama,
		}[library](bootstrap, topic, count))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read() (records []record) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var one record
		fail(json.Unmarshal(lines.Bytes(), &one))
		records = append(records, one)
	}
	fail(lines.Err())
	return records
}

func print(one record) {
	line, err := json.Marshal(one)
	fail(err)
	fmt.Println(string(line))
}

func produceFranz(bootstrap, topic, codec string, records []record) error {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ProducerBatchCompression(codecs[codec]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	context, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var sent []*kgo.Record
	for _, one := range records {
		record := &kgo.Record{Topic: topic, Key: plain(one.Key), Value: plain(one.Value)}
		for _, header := range one.Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: header.Name, Value: plain(header.Value)})
		}
		sent = append(sent, record)
	}
	return client.ProduceSync(context, sent...).FirstErr()
}

func consumeFranz(bootstrap, topic string, count int) error {
	start := map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumePartitions(start))
	if err != nil {
		return err
	}
	defer client.Close()
	context, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for count > 0 {
		fetches := client.PollFetches(context)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(found *kgo.Record) {
			one := record{Key: optional(found.Key), Value: optional(found.Value), Headers: []header{}}
			for _, found := range found.Headers {
				one.Headers = append(one.Headers, header{found.Key, optional(found.Value)})
			}
			print(one)
			count--
		})
	}
	return nil
}

func saramaConfig() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Partitioner = sarama.NewManualPartitioner
	return config
}

// An encoder for null, which sarama writes where a key or value is missing altogether.
func encoder(bytes *[]byte) sarama.Encoder {
	if bytes == nil {
		return nil
	}
	return sarama.ByteEncoder(*bytes)
}

func produceSarama(bootstrap, topic, codec string, records []record) error {
	config := saramaConfig()
	config.Producer.Compression = map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}[codec]
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for _, one := range records {
		message := &sarama.ProducerMessage{Topic: topic, Partition: 0, Key: encoder(one.Key), Value: encoder(one.Value)}
		for _, header := range one.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Name), Value: plain(header.Value)})
		}
		messages = append(messages, message)
	}
	return producer.SendMessages(messages)
}

func consumeSarama(bootstrap, topic string, count int) error {
	consumer, err := sarama.NewConsumer([]string{bootstrap}, saramaConfig())
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
			one := record{Key: optional(found.Key), Value: optional(found.Value), Headers: []header{}}
			for _, found := range found.Headers {
				one.Headers = append(one.Headers, header{string(found.Key), optional(found.Value)})
			}
			print(one)
		case <-end:
			return errors.New("not all records came in time")
		}
	}
	return nil
}
