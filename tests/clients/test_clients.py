#!/usr/bin/env python3
"""Kafka clients that nobody here wrote, against the real server: what they produce, consume and administer.

Part of `make test`, within two minutes; `make test-clients` runs what takes longer as well (CLIENTS=all).
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import unittest
import uuid

sys.dont_write_bytecode = True  # nothing stays in the tree

import environment

environment.enter()

import aiokafka
import aiokafka.admin
import confluent_kafka
import confluent_kafka.admin as confluent_admin
import kafka
import kafka.admin
import kafka.errors

from records import CODECS, RECORDS

TIMEOUT_S = 30
ALL = os.environ.get("CLIENTS") == "all"
SERVER = None


def setUpModule():
    global SERVER
    SERVER = environment.Server("group.initial.rebalance.delay.ms=100", "group.consumer.heartbeat.interval.ms=300",
                                "group.consumer.session.timeout.ms=6000", "group.consumer.min.heartbeat.interval.ms=100",
                                "group.consumer.min.session.timeout.ms=1000")
    print(f"clients: confluent-kafka {confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]}), "
          f"kafka-python {kafka.__version__}, aiokafka {aiokafka.__version__}, Python {platform.python_version()}")


def tearDownModule():
    SERVER.stop()


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


class Go:
    """A client of Go's, by the program in `go`."""

    def __init__(self, library):
        self.name = self.library = library

    def run(self, verb, topic, last, lines=()):
        command = [environment.go_program(), self.library, verb, SERVER.kafka, topic, str(last)]
        return environment.run(command, "\n".join(map(json.dumps, lines)))

    def produce(self, topic, codec):
        def optional(value):
            return None if value is None else base64.b64encode(value).decode()

        self.run("produce", topic, codec, [{
            "key": optional(key), "value": optional(value),
            "headers": [{"name": name, "value": optional(one)} for name, one in headers],
        } for key, value, headers in RECORDS])

    def consume(self, topic, count):
        def optional(text):
            return None if text is None else base64.b64decode(text)

        found = map(json.loads, self.run("consume", topic, count).splitlines())
        return [(optional(one["key"]), optional(one["value"]),
                 [(header["name"], optional(header["value"])) for header in one["headers"]]) for one in found]


class Java:
    """Kafka's own client, by the program in `java`."""

    def __init__(self, version):
        self.name, self.version = f"kafka-clients {version}", version

    def run(self, verb, topic, last, lines=()):
        command = ["java", "-cp", environment.java_classes(self.version), "Clients", verb, SERVER.kafka, topic, str(last)]
        return environment.run(command, "\n".join(lines))

    def produce(self, topic, codec):
        def word(value):
            return "-" if value is None else "=" + base64.b64encode(value).decode()

        self.run("produce", topic, codec, [" ".join(
            [word(key), word(value), *(word(part) for name, one in headers for part in (name.encode(), one))])
            for key, value, headers in RECORDS])

    def consume(self, topic, count):
        def part(word):
            return None if word == "-" else base64.b64decode(word[1:])

        found = []
        for line in self.run("consume", topic, count).splitlines():
            key, value, *headers = map(part, line.split(" "))
            found.append((key, value, [(name.decode(), one) for name, one in zip(headers[::2], headers[1::2])]))
        return found


CLIENTS = [Confluent, KafkaPython, AioKafka]
if ALL:
    CLIENTS += [Go("franz-go"), Go("sarama"), Java("3.9.1"), Java("4.1.2")]


def readers(writer, codec):
    """Everybody reads everybody, and every codec, but not each of the two together: some are a process each time."""
    return CLIENTS if not ALL or writer is Confluent or codec == "zstd" else [Confluent]


def written(writer):
    """The records as a client can write them."""
    return getattr(writer, "RECORDS", RECORDS)


class Records(unittest.TestCase):
    """What one client writes, every client reads, byte for byte."""

    maxDiff = 2000

    def test_every_codec_from_every_client_to_every_client(self):
        for writer in CLIENTS:
            for codec in CODECS:
                topic = topic_name()
                Confluent.create(topic)
                writer.produce(topic, codec)
                for reader in readers(writer, codec):
                    with self.subTest(writer=writer.name, codec=codec, reader=reader.name):
                        self.assertEqual(reader.consume(topic, len(RECORDS)), written(writer))

    def test_idempotent_producers(self):
        for writer in [Confluent, KafkaPython, AioKafka]:
            with self.subTest(writer=writer.name):
                topic = topic_name()
                Confluent.create(topic)
                writer.produce(topic, "lz4", idempotent=True)
                writer.produce(topic, "none", idempotent=True)
                self.assertEqual(Confluent.consume(topic, 2 * len(RECORDS)), 2 * written(writer))

    def test_acks_0_and_1(self):
        for acks in [0, 1]:
            with self.subTest(acks=acks):
                topic = topic_name()
                Confluent.create(topic)
                producer = Confluent.producer(acks=acks)
                for number in range(100):
                    producer.produce(topic, str(number))
                self.assertEqual(producer.flush(TIMEOUT_S), 0)
                found = Confluent.consume(topic, 100)
                self.assertEqual([value for _, value, _ in found], [str(number).encode() for number in range(100)])

    def test_many_records_keep_their_order_in_each_partition(self):
        topic, count = topic_name(), 20_000
        Confluent.create(topic, 4)
        producer = Confluent.producer(**{"enable.idempotence": True})
        for number in range(count):
            producer.produce(topic, str(number), str(number % 50))
            producer.poll(0)
        self.assertEqual(producer.flush(TIMEOUT_S), 0)
        consumer = Confluent.consumer()
        consumer.assign([confluent_kafka.TopicPartition(topic, index, 0) for index in range(4)])
        found = {}
        total = 0
        end = time.monotonic() + TIMEOUT_S
        while total < count and time.monotonic() < end:
            for message in consumer.consume(1000, 1):
                found.setdefault(message.key(), []).append(int(message.value()))
                total += 1
        consumer.close()
        self.assertEqual(total, count)
        self.assertTrue(all(values == sorted(values) for values in found.values()))

    def test_the_topic_is_created_by_producing_to_it(self):
        topic = topic_name()
        KafkaPython.produce(topic, "none")
        self.assertEqual(KafkaPython.consume(topic, len(RECORDS)), KafkaPython.RECORDS)


class Kcat(unittest.TestCase):
    @unittest.skipUnless(shutil.which("kcat"), "kcat is not installed")
    def test_lines_go_in_and_come_out(self):
        topic = topic_name()
        lines = [f"k{number}:line {number}" for number in range(100)]
        environment.run(["kcat", "-b", SERVER.kafka, "-P", "-t", topic, "-K", ":", "-z", "gzip"], "\n".join(lines))
        shown = environment.run(["kcat", "-b", SERVER.kafka, "-C", "-t", topic, "-K", ":", "-e", "-q"])
        self.assertEqual(shown.splitlines(), lines)
        listed = json.loads(environment.run(["kcat", "-b", SERVER.kafka, "-L", "-J", "-t", topic]))
        self.assertEqual([len(one["partitions"]) for one in listed["topics"]], [1])


class Offsets(unittest.TestCase):
    def test_watermarks_and_offsets_by_time(self):
        topic = topic_name()
        Confluent.create(topic)
        producer = Confluent.producer()
        for number in range(10):
            producer.produce(topic, str(number), timestamp=1_000 + number, partition=0)
        producer.flush(TIMEOUT_S)
        consumer = Confluent.consumer()
        self.assertEqual(consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), timeout=TIMEOUT_S), (0, 10))
        wanted = [confluent_kafka.TopicPartition(topic, 0, time_ms) for time_ms in (1_004,)]
        self.assertEqual([one.offset for one in consumer.offsets_for_times(wanted, TIMEOUT_S)], [4])
        consumer.close()
        other = KafkaPython.consumer()
        partition = kafka.TopicPartition(topic, 0)
        self.assertEqual(other.beginning_offsets([partition]), {partition: 0})
        self.assertEqual(other.end_offsets([partition]), {partition: 10})
        self.assertEqual(other.offsets_for_times({partition: 1_006})[partition].offset, 6)
        self.assertIsNone(other.offsets_for_times({partition: 9_999})[partition])
        other.close()


class Groups(unittest.TestCase):
    def test_a_group_goes_on_where_it_stopped(self):
        topic, group = topic_name(), uuid.uuid4().hex
        Confluent.create(topic, 2)
        producer = Confluent.producer()

        def send(numbers):
            for number in numbers:
                producer.produce(topic, str(number), partition=number % 2)
            self.assertEqual(producer.flush(TIMEOUT_S), 0)

        def read(count):
            consumer = Confluent.consumer(**{"group.id": group})
            consumer.subscribe([topic])
            found = []
            end = time.monotonic() + TIMEOUT_S
            while len(found) < count and time.monotonic() < end:
                message = consumer.poll(1)
                if message is not None and message.error() is None:
                    found.append(int(message.value()))
            consumer.commit(asynchronous=False)
            consumer.close()
            return sorted(found)

        send(range(20))
        self.assertEqual(read(20), list(range(20)))
        send(range(20, 30))
        self.assertEqual(read(10), list(range(20, 30)))

    def test_other_clients_groups(self):
        for group_id in [uuid.uuid4().hex]:
            topic = topic_name()
            Confluent.create(topic, 2)
            KafkaPython.produce(topic, "none")
            consumer = KafkaPython.consumer(topic, group_id=group_id)
            found = []
            end = time.monotonic() + TIMEOUT_S
            while len(found) < len(RECORDS) and time.monotonic() < end:
                for messages in consumer.poll(1000).values():
                    found += [(one.key, one.value, [tuple(header) for header in one.headers]) for one in messages]
            consumer.commit()
            consumer.close()
            self.assertEqual(found, KafkaPython.RECORDS)

        async def run(group_id):
            consumer = aiokafka.AIOKafkaConsumer(
                topic, bootstrap_servers=SERVER.kafka, group_id=group_id, auto_offset_reset="earliest")
            await consumer.start()
            try:
                found = [await asyncio.wait_for(consumer.getone(), TIMEOUT_S) for _ in RECORDS]
                await consumer.commit()
                return [one.value for one in found]
            finally:
                await consumer.stop()
        self.assertEqual(asyncio.run(run(uuid.uuid4().hex)), [value for _, value, _ in RECORDS])

    def test_members_share_partitions_and_take_over_from_one_that_leaves(self):
        topic, group = topic_name(), uuid.uuid4().hex
        Confluent.create(topic, 4)
        consumers = [Confluent.consumer(**{"group.id": group, "heartbeat.interval.ms": 500}) for _ in range(2)]
        for consumer in consumers:
            consumer.subscribe([topic])

        def spread(members):
            for member in members:
                member.poll(0.1)
            return sorted(one.partition for member in members for one in member.assignment())

        until(lambda: all(member.poll(0.1) is None and len(member.assignment()) == 2 for member in consumers), "two each")
        self.assertEqual(spread(consumers), [0, 1, 2, 3])
        consumers[0].close()
        until(lambda: spread(consumers[1:]) == [0, 1, 2, 3], "all for the one that is left")
        admin = Confluent.admin()
        described = admin.describe_consumer_groups([group])[group].result(TIMEOUT_S)
        self.assertEqual((described.state.name, len(described.members)), ("STABLE", 1))
        consumers[1].close()
        deleted = admin.delete_consumer_groups([group])[group]
        self.assertIsNone(deleted.result(TIMEOUT_S))


class LibrdkafkaMember:
    """A member of a group whose partitions the broker assigns, on a thread of its own."""

    def __init__(self, topic, group, instance_id=None):
        settings = {"bootstrap.servers": SERVER.kafka, "group.id": group, "group.protocol": "consumer",
                    "auto.offset.reset": "earliest", "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 1000}
        if instance_id:
            settings["group.instance.id"] = instance_id
        self.consumer = confluent_kafka.Consumer(settings)
        self.read, self.failures, self.last, self.ends = [], [], [], threading.Event()
        self.consumer.subscribe([topic])
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while not self.ends.is_set():
                messages = self.consumer.consume(100, 0.1)
                for message in messages:
                    if message.error() is None:
                        self.read.append(message.value().decode())
                    elif message.error().code() != confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:
                        self.failures.append(message.error())
                if any(message.error() is None for message in messages):
                    self.commit()
                # Asked on this thread: on another it would wait for this one, which waits for it.
                self.last = sorted((one.topic, one.partition) for one in self.consumer.assignment())
        except Exception as error:  # It is the test that fails, not the thread.
            self.failures.append(error)

    def commit(self):
        try:
            self.consumer.commit(asynchronous=False)
        except confluent_kafka.KafkaException as error:
            # The partitions have moved on meanwhile: whoever has them reads again from what was committed.
            if error.args[0].name() not in ("STALE_MEMBER_EPOCH", "_NO_OFFSET", "_ASSIGNMENT_LOST", "UNKNOWN_MEMBER_ID"):
                raise

    def assigned(self):
        return self.last

    def stop(self):
        self.ends.set()
        self.thread.join()
        self.consumer.close()


class JavaMember:
    """The same, by Kafka's own client."""

    VERSION = "4.1.2"

    def __init__(self, topic, group, instance_id=None):
        classes = environment.java_classes(self.VERSION, "Member")
        command = ["java", "-cp", classes, "Member", SERVER.kafka, topic, group, *filter(None, [instance_id])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        preexec_fn=environment.with_parent, text=True)
        self.read, self.failures, self.last = [], [], []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        for line in self.process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "assigned":
                self.last = sorted((one.rsplit("-", 1)[0], int(one.rsplit("-", 1)[1])) for one in rest.split())
            else:
                self.read.append(word)
        if self.process.wait() != 0:
            self.failures.append(self.process.stderr.read())

    def assigned(self):
        return self.last

    def stop(self):
        self.process.stdin.close()
        self.thread.join()
        self.process.stdout.close()
        self.process.stderr.close()


MEMBERS = [LibrdkafkaMember] + ([JavaMember] if ALL else [])


class AssignedGroups(unittest.TestCase):
    """Groups whose partitions the broker assigns (KIP-848)."""

    def setUp(self):
        self.topic, self.group = topic_name(), uuid.uuid4().hex
        Confluent.create(self.topic, 6)
        self.members, self.admin = [], Confluent.admin()
        self.addCleanup(lambda: [member.stop() for member in self.members])

    def join(self, kind, **settings):
        member = kind(settings.pop("topic", self.topic), self.group, **settings)
        self.members.append(member)
        return member

    def leave(self, member):
        self.members.remove(member)
        member.stop()
        self.assertEqual(member.failures, [])

    def shared(self, *counts, topic=None):
        """Waits until the members have so many partitions each, all of them together."""
        every = [(topic or self.topic, index) for index in range(sum(counts))]

        def is_so():
            found = [member.assigned() for member in self.members]
            return sorted(map(len, found)) == sorted(counts) and sorted(sum(found, [])) == every
        try:
            until(is_so, f"{counts} partitions each")
        except AssertionError as error:
            members = {one.member_id: sorted((part.topic, part.partition) for part in one.assignment.topic_partitions)
                       for one in self.describe().members}
            failures = [member.failures for member in self.members]
            raise AssertionError(f"{error}, but {[one.assigned() for one in self.members]}; the broker says {members}; "
                                 f"{failures}") from None

    def describe(self):
        return self.admin.describe_consumer_groups([self.group])[self.group].result(TIMEOUT_S)

    def test_members_join_and_leave_under_load(self):
        ends, sent = threading.Event(), []

        def load():
            producer = Confluent.producer()
            while not ends.is_set() or len(sent) < 1000:
                producer.produce(self.topic, str(len(sent)), partition=len(sent) % 6)
                sent.append(str(len(sent)))
                producer.poll(0.001)
            producer.flush(TIMEOUT_S)

        loader = threading.Thread(target=load)
        loader.start()
        everybody = []
        try:
            everybody += [self.join(kind) for kind in MEMBERS]
            everybody += [self.join(LibrdkafkaMember) for _ in range(3 - len(MEMBERS))]
            self.shared(*self.counts())
            everybody += [self.join(kind) for kind in MEMBERS]
            self.shared(*self.counts())
            for member in self.members[:2]:
                self.leave(member)
            self.shared(*self.counts())
        finally:
            ends.set()
            loader.join()
        until(lambda: set(sent) <= {value for member in everybody for value in member.read}, "everything is read")
        self.assertEqual([member.failures for member in everybody if member.failures], [])

    def counts(self):
        """How many partitions each member is to have."""
        return [6 // len(self.members) + (place < 6 % len(self.members)) for place in range(len(self.members))]

    def test_a_group_is_described_and_deleted(self):
        member = self.join(LibrdkafkaMember)
        self.shared(6)
        described = self.describe()
        self.assertEqual((described.state.name, described.type.name), ("STABLE", "CONSUMER"))
        self.assertEqual(len(described.members), 1)
        self.assertEqual(len(described.members[0].assignment.topic_partitions), 6)
        listed = self.admin.list_consumer_groups(types={confluent_kafka.ConsumerGroupType.CONSUMER}).result(TIMEOUT_S)
        self.assertIn(self.group, [one.group_id for one in listed.valid])
        self.leave(member)
        self.assertIsNone(self.admin.delete_consumer_groups([self.group])[self.group].result(TIMEOUT_S))

    def test_a_pattern_finds_topics_that_come_later(self):
        for kind in MEMBERS:
            with self.subTest(kind.__name__):
                begin = topic_name()
                member = self.join(kind, topic=f"^{begin}-[0-9]+")
                Confluent.create(f"{begin}-1", 2)
                Confluent.create(f"{begin}-x", 1)
                self.shared(2, topic=f"{begin}-1")
                self.admin.create_partitions([confluent_admin.NewPartitions(f"{begin}-1", 4)])[f"{begin}-1"].result(TIMEOUT_S)
                self.shared(4, topic=f"{begin}-1")
                self.leave(member)

    def test_a_static_member_comes_back_to_what_it_had(self):
        for kind in MEMBERS:
            with self.subTest(kind.__name__):
                other, fixed = self.join(LibrdkafkaMember), self.join(kind, instance_id="fixed")
                self.shared(3, 3)
                had, kept = fixed.assigned(), other.assigned()
                self.leave(fixed)
                back = self.join(kind, instance_id="fixed")
                until(lambda: back.assigned() == had, "what it had")
                self.assertEqual(other.assigned(), kept)
                # Away for longer than its session, it is given up.
                self.leave(back)
                self.shared(6)
                self.leave(other)

    def test_a_group_changes_its_protocol_when_it_has_no_members(self):
        classic = Confluent.consumer(**{"group.id": self.group})
        producer = Confluent.producer()
        producer.produce(self.topic, "first", partition=0)
        self.assertEqual(producer.flush(TIMEOUT_S), 0)
        classic.subscribe([self.topic])
        until(lambda: classic.poll(0.1), "the first record")
        classic.commit(asynchronous=False)
        classic.close()
        producer.produce(self.topic, "second", partition=0)
        self.assertEqual(producer.flush(TIMEOUT_S), 0)
        member = self.join(LibrdkafkaMember)
        until(lambda: member.read, "the second record")
        self.assertEqual(member.read, ["second"])
        self.leave(member)
        classic = Confluent.consumer(**{"group.id": self.group})
        classic.subscribe([self.topic])
        until(lambda: classic.poll(0.1) is None and len(classic.assignment()) == 6, "all partitions")
        classic.close()


class Admin(unittest.TestCase):
    def setUp(self):
        self.admin = Confluent.admin()

    def refused(self, future):
        with self.assertRaises(confluent_kafka.KafkaException) as raised:
            future.result(TIMEOUT_S)
        return raised.exception.args[0].name()

    def test_topics_are_created_described_altered_and_deleted(self):
        topic = topic_name()
        Confluent.create(topic, 3, **{"retention.ms": "60000"})
        listed = self.admin.list_topics(topic, TIMEOUT_S)
        self.assertEqual(len(listed.topics[topic].partitions), 3)
        resource = confluent_admin.ConfigResource("topic", topic)
        configs = self.admin.describe_configs([resource])[resource].result(TIMEOUT_S)
        self.assertEqual(configs["retention.ms"].value, "60000")
        self.assertEqual(configs["cleanup.policy"].value, "delete")
        entry = confluent_admin.ConfigEntry("retention.ms", "70000",
                                            incremental_operation=confluent_admin.AlterConfigOpType.SET)
        append = confluent_admin.ConfigEntry("cleanup.policy", "compact",
                                             incremental_operation=confluent_admin.AlterConfigOpType.APPEND)
        resource = confluent_admin.ConfigResource("topic", topic, incremental_configs=[entry, append])
        self.admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)
        configs = self.admin.describe_configs([resource])[resource].result(TIMEOUT_S)
        self.assertEqual((configs["retention.ms"].value, configs["cleanup.policy"].value), ("70000", "delete,compact"))
        self.admin.create_partitions([confluent_admin.NewPartitions(topic, 5)])[topic].result(TIMEOUT_S)
        self.assertEqual(len(self.admin.list_topics(topic, TIMEOUT_S).topics[topic].partitions), 5)
        self.admin.delete_topics([topic])[topic].result(TIMEOUT_S)
        self.assertNotIn(topic, self.admin.list_topics(timeout=TIMEOUT_S).topics)

    def test_refusals_are_kafkas(self):
        topic = topic_name()
        Confluent.create(topic, 2)

        def create(name, partitions=1, replication=1, **config):
            return self.admin.create_topics([confluent_admin.NewTopic(name, partitions, replication, config=config)])[name]

        self.assertEqual(self.refused(create(topic)), "TOPIC_ALREADY_EXISTS")
        self.assertEqual(self.refused(create("a b")), "TOPIC_EXCEPTION")
        self.assertEqual(self.refused(create(topic_name(), replication=3)), "INVALID_REPLICATION_FACTOR")
        self.assertEqual(self.refused(create(topic_name(), 0)), "INVALID_PARTITIONS")
        self.assertEqual(self.refused(create(topic_name(), **{"no.such.config": "1"})), "INVALID_CONFIG")
        self.assertEqual(self.refused(create(topic_name(), **{"min.insync.replicas": "2"})), "INVALID_CONFIG")
        fewer = self.admin.create_partitions([confluent_admin.NewPartitions(topic, 1)])[topic]
        self.assertEqual(self.refused(fewer), "INVALID_PARTITIONS")
        missing = topic_name()
        self.assertEqual(self.refused(self.admin.delete_topics([missing])[missing]), "UNKNOWN_TOPIC_OR_PART")

    def test_records_are_deleted(self):
        topic = topic_name()
        Confluent.create(topic)
        Confluent.produce(topic, "none")
        before = confluent_kafka.TopicPartition(topic, 0, 4)
        deleted = self.admin.delete_records([before])[before].result(TIMEOUT_S)
        self.assertEqual(deleted.low_watermark, 4)
        consumer = Confluent.consumer()
        bounds = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), timeout=TIMEOUT_S)
        consumer.close()
        self.assertEqual(bounds, (4, len(RECORDS)))

    def test_the_cluster_is_described(self):
        cluster = self.admin.describe_cluster(request_timeout=TIMEOUT_S).result(TIMEOUT_S)
        self.assertEqual(cluster.cluster_id, SERVER.ready["cluster_id"])
        self.assertEqual([f"{node.host}:{node.port}" for node in cluster.nodes], [SERVER.kafka])
        acl = confluent_admin.AclBinding(
            confluent_admin.ResourceType.TOPIC, "t", confluent_admin.ResourcePatternType.LITERAL, "User:a", "*",
            confluent_admin.AclOperation.READ, confluent_admin.AclPermissionType.ALLOW)
        self.assertEqual(self.refused(self.admin.create_acls([acl])[acl]), "SECURITY_DISABLED")

    def test_kafka_pythons_admin(self):
        admin = kafka.admin.KafkaAdminClient(bootstrap_servers=SERVER.kafka)
        topic = topic_name()
        admin.create_topics([kafka.admin.NewTopic(topic, 2, 1)])
        self.assertIn(topic, admin.list_topics())
        admin.create_partitions({topic: kafka.admin.NewPartitions(4)})
        self.assertEqual(len(admin.describe_topics([topic])[0]["partitions"]), 4)
        with self.assertRaises(kafka.errors.TopicAlreadyExistsError):
            admin.create_topics([kafka.admin.NewTopic(topic, 2, 1)])
        admin.delete_topics([topic])
        self.assertNotIn(topic, admin.list_topics())
        admin.close()


class Connections(unittest.TestCase):
    def test_idle_connections_are_small(self):
        count, most_bytes = 5_000, 64 << 10
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < count + 1_000:
            self.skipTest(f"no more than {hard} files may be open")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        host, port = SERVER.kafka.rsplit(":", 1)
        # ApiVersions 0, as a client begins.
        request = bytes.fromhex("0000000e 0012 0000 00000001 0004 74657374".replace(" ", ""))
        before = SERVER.resident_bytes()
        idle = []
        try:
            for _ in range(count):
                one = socket.create_connection((host, int(port)), TIMEOUT_S)
                idle.append(one)
                one.sendall(request)
                self.assertGreater(len(one.recv(4096)), 8)
            each = (SERVER.resident_bytes() - before) // count
            print(f"clients: {each} bytes for each of {count} idle connections")
            self.assertLess(each, most_bytes)
            # And the server still serves.
            Confluent.create(topic_name())
        finally:
            for one in idle:
                one.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Docs(unittest.TestCase):
    def test_the_program_of_the_page_works(self):
        page = pathlib.Path(__file__).parents[2] / "docs/kafka.md"
        program = re.search(r"```python\n(.*?)```", page.read_text(), re.S).group(1)
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(program.replace("127.0.0.1:9092", SERVER.kafka), {})
        self.assertEqual(shown.getvalue(), "b'EWR to IAH'\n")


class Failures(unittest.TestCase):
    def test_a_producer_and_a_consumer_go_on_after_the_server_was_killed(self):
        topic, count = topic_name(), 3_000
        Confluent.create(topic)
        producer = Confluent.producer(**{"enable.idempotence": True, "message.timeout.ms": 60_000})
        failed = []
        sent = threading.Thread(target=lambda: self.send(producer, topic, count, failed))
        sent.start()
        consumer = Confluent.consumer()
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        found = []
        killed = False
        end = time.monotonic() + 2 * TIMEOUT_S
        while len(found) < count and time.monotonic() < end:
            found += [int(one.value()) for one in consumer.consume(500, 0.2) if one.error() is None]
            if len(found) > count / 4 and not killed:
                SERVER.kill()
                SERVER.start()
                killed = True
        sent.join()
        consumer.close()
        self.assertEqual((failed, killed), ([], True))
        self.assertEqual(found, list(range(count)))

    @staticmethod
    def send(producer, topic, count, failed):
        for number in range(count):
            producer.produce(topic, str(number), partition=0, on_delivery=lambda error, _: error and failed.append(error))
            producer.poll(0.001)
        if producer.flush(2 * TIMEOUT_S) != 0:
            failed.append("not all was sent")

    def test_refusals_reach_the_producer(self):
        topic = topic_name()
        Confluent.create(topic, **{"max.message.bytes": "2000"})
        errors = []
        producer = Confluent.producer()
        producer.produce(topic, "x" * 5_000, on_delivery=lambda error, _: errors.append(error))
        producer.flush(TIMEOUT_S)
        self.assertEqual([error.name() for error in errors], ["MSG_SIZE_TOO_LARGE"])


if __name__ == "__main__":
    unittest.main()
