"""kafka-python."""

import subprocess
import sys

from kafka import IsolationLevel, KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, NewPartitions, NewTopic
from kafka.errors import KafkaError, OffsetOutOfRangeError

TIMEOUT_S = 30


def code(call):
    """Kafka's number of what a call fails with; 0 for none."""
    try:
        call()
        return 0
    except KafkaError as error:
        return error.errno


class Client:
    def __init__(self, bootstrap, topic):
        self.bootstrap, self.topic = bootstrap, topic

    def consumer(self, *topics, **settings):
        settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False} | settings
        return KafkaConsumer(*topics, bootstrap_servers=self.bootstrap, **settings)

    def group(self, group, left):
        # It commits what was read before partitions are taken away.
        consumer = self.consumer(self.topic, group_id=group, session_timeout_ms=6_000, heartbeat_interval_ms=500,
                                 enable_auto_commit=True, auto_commit_interval_ms=200)
        while not left.is_set():
            for records in consumer.poll(100).values():
                for one in records:
                    print(one.partition, one.offset)
        consumer.close()

    def offsets(self, group):
        partition = TopicPartition(self.topic, 0)
        consumer = self.consumer(group_id=group)
        print(f"earliest: {consumer.beginning_offsets([partition])[partition]}")
        print(f"latest: {consumer.end_offsets([partition])[partition]}")
        print(f"at 1004: {consumer.offsets_for_times({partition: 1_004})[partition].offset}")
        consumer.commit({partition: OffsetAndMetadata(7, "note", -1)})
        found = consumer.committed(partition, metadata=True)
        print(f"committed: {found.offset} {found.metadata}")
        consumer.close()

    def admin(self):
        topic, admin = self.topic, KafkaAdminClient(bootstrap_servers=self.bootstrap)

        def create(step, name, replicas=1, **configs):
            new = NewTopic(name, 3, replicas, topic_configs=configs)
            print(f"{step}: {code(lambda: admin.create_topics([new]))}")

        def partitions():
            print(f"partitions: {len(admin.describe_topics([topic])[0]['partitions'])}")

        create("create", topic, **{"retention.ms": "60000"})
        create("create again", topic)
        create("create a bad name", "a b")
        create("create with 3 replicas", f"{topic}-3", 3)
        create("create with an unknown config", f"{topic}-c", **{"no.such": "1"})
        partitions()
        admin.create_partitions({topic: NewPartitions(5)})
        partitions()
        print(f"fewer partitions: {code(lambda: admin.create_partitions({topic: NewPartitions(2)}))}")
        admin.alter_configs([ConfigResource("TOPIC", topic, configs={"retention.ms": "70000"})])
        described = admin.describe_configs([ConfigResource("TOPIC", topic)])["topic"][topic]
        print(f"retention.ms: {described['retention.ms']['value']}")
        print(f"delete: {code(lambda: admin.delete_topics([topic]))}")
        print(f"delete again: {code(lambda: admin.delete_topics([topic]))}")
        admin.close()

    def refused(self):
        producer = KafkaProducer(bootstrap_servers=self.bootstrap)
        print(f"too large: {code(lambda: producer.send(self.topic, bytes(5_000)).get(TIMEOUT_S))}")
        producer.close()
        consumer = self.consumer(auto_offset_reset="none")
        partition = TopicPartition(self.topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 1_000)
        try:
            consumer.poll(TIMEOUT_S * 1_000)
        except OffsetOutOfRangeError as error:
            print(f"out of range: {error.errno}")
        consumer.close()

    def transactions(self, group):
        output = f"{self.topic}-out"

        def begin():
            made = KafkaProducer(bootstrap_servers=self.bootstrap, transactional_id=output, acks="all")
            made.init_transactions()
            return made

        def send(made, *values):
            for one in [made.send(output, value, partition=0) for value in values]:
                one.get(TIMEOUT_S)

        def read(topic, enough):
            """A topic's committed records."""
            consumer, partition, found = self.consumer(isolation_level="read_committed"), TopicPartition(topic, 0), []
            consumer.assign([partition])
            while not enough(found):
                for records in consumer.poll(1_000).values():
                    found += [one.value for one in records]
            consumer.close()
            return found

        first = begin()
        first.begin_transaction()
        send(first, b"kept")
        first.commit_transaction()
        first.begin_transaction()
        send(first, b"dropped")
        first.abort_transaction()
        first.begin_transaction()
        send(first, *read(self.topic, lambda found: len(found) == 10))
        first.send_offsets_to_transaction({TopicPartition(self.topic, 0): OffsetAndMetadata(10, "", -1)}, group)
        first.commit_transaction()
        first.begin_transaction()
        send(first, b"fenced")
        successor = begin()
        print(f"fenced: {code(first.commit_transaction)}")
        successor.begin_transaction()
        send(successor, b"successor")
        successor.commit_transaction()
        successor.close()
        found = read(output, lambda found: found[-1:] == [b"successor"])
        print(f"read: {' '.join(one.decode() for one in found)}")
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        print(f"state: {admin.describe_transactions([output])[output].state.value}")
        admin.close()

    def start(self):
        """The examples of its README: its commands, its producer, its consumer, its transactions."""
        topic, bootstrap = f"{self.topic}-foo", self.bootstrap
        for command in [
            f"python -m kafka.admin -b {bootstrap} topics create -t {topic}",
            f"""echo "foo message" | python -m kafka.producer -b {bootstrap} -t {topic}""",
            f"python -m kafka.consumer -b {bootstrap} -C auto_offset_reset=earliest -C consumer_timeout_ms=1000 -g foo-group "
            f"-t {topic}",
        ]:
            command = command.replace("python", sys.executable)
            run = subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE, text=True)
        assert "foo message" in run.stdout, run.stdout

        producer = KafkaProducer(bootstrap_servers=bootstrap)
        for _ in range(100):
            # Fire-and-forget: send() is async and returns before delivery
            producer.send(self.topic, b'some_message_bytes')
        # To check the status of an async message delivery, use .get()
        future = producer.send(self.topic, b'another_message')
        # future.get() will block until it can return the result or raise on error
        future.get(timeout=60)
        producer.flush()
        # Use a key for hashed-partitioning
        producer.send(self.topic, key=b'foo', value=b'bar')
        # Include record headers. The format is list of tuples with string key
        # and bytes value.
        producer.send(self.topic, value=b'c29tZSB2YWx1ZQ==', headers=[('content-encoding', b'base64')])
        # Compress messages
        producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type='gzip')
        for i in range(1000):
            producer.send(self.topic, b'msg %d' % i)
        producer.flush()

        # Use transactions
        producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id='fizzbuzz')
        producer.init_transactions()
        producer.begin_transaction()
        future = producer.send(self.topic, value=b'yes')
        future.get()  # wait for successful produce
        producer.commit_transaction()  # commit the transaction

        producer.begin_transaction()
        future = producer.send(self.topic, value=b'no')
        future.get()  # wait for successful produce
        producer.abort_transaction()  # abort the transaction

        # Read only committed messages from transactional topic
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset='earliest', consumer_timeout_ms=5_000,
                                 isolation_level=IsolationLevel.READ_COMMITTED)
        consumer.subscribe([self.topic])
        last = None
        for msg in consumer:
            assert msg.value != b'no'
            last = msg
            if msg.value == b'yes':
                break
        print(last.value.decode())
