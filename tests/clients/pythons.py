"""Python's clients, and the server that a file of tests shares with them."""

import asyncio
import time
import uuid

import environment

import aiokafka
import confluent_kafka
import confluent_kafka.admin as confluent_admin
import kafka

from records import RECORDS

TIMEOUT_S = 30
# Started and stopped by the file that runs.
SERVER = environment.Server("group.initial.rebalance.delay.ms=100", "group.consumer.heartbeat.interval.ms=300",
                            "group.consumer.session.timeout.ms=6000", "group.consumer.min.heartbeat.interval.ms=100",
                            "group.consumer.min.session.timeout.ms=1000")


def topic_name():
    return f"t-{uuid.uuid4().hex[:12]}"


def until(condition, what):
    """Asks again until it is so, with a limit that only a failure meets."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {TIMEOUT_S} s")
        time.sleep(0.05)


class Confluent:
    """librdkafka."""

    name = "confluent-kafka"

    @staticmethod
    def producer(**settings):
        return confluent_kafka.Producer({"bootstrap.servers": SERVER.kafka, "linger.ms": 5} | settings)

    @staticmethod
    def consumer(**settings):
        return confluent_kafka.Consumer({
            "bootstrap.servers": SERVER.kafka, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 10_000,
        } | settings)

    @staticmethod
    def admin():
        return confluent_admin.AdminClient({"bootstrap.servers": SERVER.kafka})

    @classmethod
    def create(cls, topic, partitions=1, **config):
        new = confluent_admin.NewTopic(topic, partitions, 1, config=config)
        admin = cls.admin()  # What it began ends with it.
        admin.create_topics([new])[topic].result(TIMEOUT_S)

    @classmethod
    def produce(cls, topic, codec, idempotent=False):
        failed = []
        producer = cls.producer(**{"compression.type": codec, "enable.idempotence": idempotent})
        for key, value, headers in RECORDS:
            producer.produce(topic, value, key, partition=0, headers=headers,
                             on_delivery=lambda error, _: error and failed.append(error))
        assert producer.flush(TIMEOUT_S) == 0 and not failed, failed

    @classmethod
    def consume(cls, topic, count):
        consumer = cls.consumer()
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        found = []
        end = time.monotonic() + TIMEOUT_S
        while len(found) < count and time.monotonic() < end:
            message = consumer.poll(1)
            if message is not None:
                assert message.error() is None, message.error()
                found.append((message.key(), message.value(), message.headers() or []))
        consumer.close()
        return found


    @classmethod
    def values(cls, topic, isolation="read_committed"):
        """Partition 0's values, to the end that such a reader sees."""
        consumer = cls.consumer(**{"isolation.level": isolation, "enable.partition.eof": True})
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        found = []
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error() is not None:
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
                consumer.close()
                return found
            found.append(message.value().decode())
        raise AssertionError(f"no end of {topic}")

    @classmethod
    def committed(cls, group, topic):
        """A group's offset in partition 0; negative for none."""
        consumer = cls.consumer(**{"group.id": group})
        found = consumer.committed([confluent_kafka.TopicPartition(topic, 0)], TIMEOUT_S)[0].offset
        consumer.close()
        return found


class KafkaPython:
    name = "kafka-python"
    # It has no headers without a value.
    RECORDS = [(key, value, [header for header in headers if header[1] is not None]) for key, value, headers in RECORDS]

    @staticmethod
    def producer(**settings):
        return kafka.KafkaProducer(bootstrap_servers=SERVER.kafka, **settings)

    @staticmethod
    def consumer(*topics, **settings):
        settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False} | settings
        return kafka.KafkaConsumer(*topics, bootstrap_servers=SERVER.kafka, **settings)

    @classmethod
    def produce(cls, topic, codec, idempotent=False):
        producer = cls.producer(compression_type=None if codec == "none" else codec, enable_idempotence=idempotent,
                                acks="all", linger_ms=5)
        sent = [producer.send(topic, value, key, headers, partition=0) for key, value, headers in cls.RECORDS]
        producer.flush(TIMEOUT_S)
        for one in sent:
            one.get(TIMEOUT_S)
        producer.close()

    @classmethod
    def consume(cls, topic, count):
        consumer = cls.consumer()
        partition = kafka.TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        found = []
        end = time.monotonic() + TIMEOUT_S
        while len(found) < count and time.monotonic() < end:
            for messages in consumer.poll(1000).values():
                found += [(one.key, one.value, [tuple(header) for header in one.headers]) for one in messages]
        consumer.close()
        return found


class AioKafka:
    name = "aiokafka"

    @staticmethod
    def produce(topic, codec, idempotent=False):
        async def run():
            producer = aiokafka.AIOKafkaProducer(
                bootstrap_servers=SERVER.kafka, compression_type=None if codec == "none" else codec, acks="all",
                enable_idempotence=idempotent)
            await producer.start()
            try:
                sent = [await producer.send(topic, value, key, partition=0, headers=headers)
                        for key, value, headers in RECORDS]
                await asyncio.wait_for(asyncio.gather(*sent), TIMEOUT_S)
            finally:
                await producer.stop()
        asyncio.run(run())

    @staticmethod
    def consume(topic, count):
        async def run():
            consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=SERVER.kafka, enable_auto_commit=False)
            await consumer.start()
            try:
                partition = aiokafka.TopicPartition(topic, 0)
                consumer.assign([partition])
                consumer.seek(partition, 0)
                found = []
                for _ in range(count):
                    one = await asyncio.wait_for(consumer.getone(), TIMEOUT_S)
                    found.append((one.key, one.value, list(one.headers)))
                return found
            finally:
                await consumer.stop()
        return asyncio.run(run())
