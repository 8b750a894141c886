"""confluent-kafka: librdkafka."""

import asyncio

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic,
                                   OffsetSpec)
from confluent_kafka.aio import AIOProducer

TIMEOUT_S = 30


def code(call):
    """Kafka's number of what a call fails with; 0 for none."""
    try:
        call()
        return 0
    except KafkaException as error:
        return error.args[0].code()


class Client:
    def __init__(self, bootstrap, topic):
        self.bootstrap, self.topic = bootstrap, topic

    def consumer(self, **settings):
        return Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.topic, "enable.auto.commit": False,
                         "auto.offset.reset": "earliest"} | settings)

    def group(self, group, left):
        consumer = self.consumer(**{"group.id": group, "session.timeout.ms": 6_000, "heartbeat.interval.ms": 500,
                                    "enable.auto.commit": True, "auto.commit.interval.ms": 200})

        def commit(consumer, _):
            try:
                consumer.commit(asynchronous=False)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._NO_OFFSET:
                    raise
        consumer.subscribe([self.topic], on_revoke=commit)
        while not left.is_set():
            found = consumer.poll(0.1)
            if found is not None:
                if found.error() is not None:
                    raise KafkaException(found.error())
                print(found.partition(), found.offset())
        consumer.close()

    def offsets(self, group):
        admin, partition = AdminClient({"bootstrap.servers": self.bootstrap}), TopicPartition(self.topic, 0)
        for step, wanted in [("earliest", OffsetSpec.earliest()), ("latest", OffsetSpec.latest()),
                             ("at 1004", OffsetSpec.for_timestamp(1_004))]:
            print(f"{step}: {admin.list_offsets({partition: wanted})[partition].result(TIMEOUT_S).offset}")
        consumer = self.consumer(**{"group.id": group})
        consumer.commit(offsets=[TopicPartition(self.topic, 0, 7, "note")], asynchronous=False)
        [found] = consumer.committed([partition], TIMEOUT_S)
        print(f"committed: {found.offset} {found.metadata}")
        consumer.close()

    def admin(self):
        topic, admin = self.topic, AdminClient({"bootstrap.servers": self.bootstrap})

        def create(step, name, replicas=1, **config):
            [made] = admin.create_topics([NewTopic(name, 3, replicas, config=config)]).values()
            print(f"{step}: {code(lambda: made.result(TIMEOUT_S))}")

        def partitions():
            [found] = admin.describe_topics(TopicCollection([topic])).values()
            print(f"partitions: {len(found.result(TIMEOUT_S).partitions)}")

        def grow(count):
            return admin.create_partitions([NewPartitions(topic, count)])[topic].result(TIMEOUT_S)

        create("create", topic, **{"retention.ms": "60000"})
        create("create again", topic)
        create("create a bad name", "a b")
        create("create with 3 replicas", f"{topic}-3", 3)
        create("create with an unknown config", f"{topic}-c", **{"no.such": "1"})
        partitions()
        grow(5)
        partitions()
        print(f"fewer partitions: {code(lambda: grow(2))}")
        entry = ConfigEntry("retention.ms", "70000", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource("topic", topic, incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)
        print(f"retention.ms: {admin.describe_configs([resource])[resource].result(TIMEOUT_S)['retention.ms'].value}")
        for step in ("delete", "delete again"):
            print(f"{step}: {code(lambda: admin.delete_topics([topic])[topic].result(TIMEOUT_S))}")

    def refused(self):
        producer, told = Producer({"bootstrap.servers": self.bootstrap}), []
        producer.produce(self.topic, bytes(5_000), on_delivery=lambda error, _: told.append(error.code() if error else 0))
        producer.flush(TIMEOUT_S)
        print("too large:", *told)
        consumer = self.consumer(**{"auto.offset.reset": "error"})
        consumer.assign([TopicPartition(self.topic, 0, 1_000)])
        error = consumer.poll(TIMEOUT_S).error()
        # As it says that an offset is out of range, to who did not ask for another.
        print("out of range:", 1 if error.code() == KafkaError._AUTO_OFFSET_RESET else error.code())
        consumer.close()

    def transactions(self, group):
        output = f"{self.topic}-out"

        def begin():
            made = Producer({"bootstrap.servers": self.bootstrap, "transactional.id": output})
            made.init_transactions(TIMEOUT_S)
            return made

        def send(made, *values):
            for value in values:
                made.produce(output, value, partition=0)
            assert made.flush(TIMEOUT_S) == 0

        first = begin()
        first.begin_transaction()
        send(first, "kept")
        first.commit_transaction(TIMEOUT_S)
        first.begin_transaction()
        send(first, "dropped")
        first.abort_transaction(TIMEOUT_S)
        consumer = self.consumer(**{"group.id": group})
        consumer.subscribe([self.topic])
        first.begin_transaction()
        for _ in range(10):
            send(first, consumer.poll(TIMEOUT_S).value())
        positions = consumer.position(consumer.assignment())
        first.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), TIMEOUT_S)
        first.commit_transaction(TIMEOUT_S)
        consumer.close()
        first.begin_transaction()
        send(first, "fenced")
        successor = begin()
        print(f"fenced: {code(lambda: first.commit_transaction(TIMEOUT_S))}")
        successor.begin_transaction()
        send(successor, "successor")
        successor.commit_transaction(TIMEOUT_S)

        reader, found = self.consumer(**{"isolation.level": "read_committed"}), []
        reader.assign([TopicPartition(output, 0, 0)])
        while found[-1:] != ["successor"]:
            found.append(reader.poll(TIMEOUT_S).value().decode())
        reader.close()
        print(f"read: {' '.join(found)}")

    def start(self):
        """The examples of its README, but for those that need a schema registry."""
        a = AdminClient({"bootstrap.servers": self.bootstrap})

        new_topics = [NewTopic(topic, num_partitions=3, replication_factor=1) for topic in [f"{self.topic}1", f"{self.topic}2"]]

        # Call create_topics to asynchronously create topics. A dict
        # of <topic,future> is returned.
        fs = a.create_topics(new_topics)

        # Wait for each operation to finish.
        for topic, f in fs.items():
            try:
                f.result()  # The result itself is None
                print(f"Topic {topic} created")
            except Exception as e:
                print(f"Failed to create topic {topic}: {e}")
                raise

        async def main():
            p = AIOProducer({"bootstrap.servers": self.bootstrap})
            try:
                # produce() returns a Future; first await the coroutine to get the Future,
                # then await the Future to get the delivered Message.
                delivery_future = await p.produce(f"{self.topic}1", value=b"hello")
                delivered_msg = await delivery_future
                # Optionally flush any remaining buffered messages before shutdown
                await p.flush()
            finally:
                await p.close()
            assert delivered_msg.error() is None

        asyncio.run(main())

        c = Consumer({
            'bootstrap.servers': self.bootstrap,
            'group.id': 'mygroup',
            'auto.offset.reset': 'earliest'
        })

        c.subscribe([f"{self.topic}1"])

        while True:
            msg = c.poll(1.0)

            if msg is None:
                continue
            if msg.error():
                print(f"Consumer error: {msg.error()}")
                continue

            print(f"Received message: {msg.value().decode('utf-8')}")
            break

        c.close()
