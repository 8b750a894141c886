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
import aiokafka.errors
import confluent_kafka
import confluent_kafka.admin as confluent_admin
import kafka
import kafka.admin
import kafka.errors

import programs
from pythons import SERVER, TIMEOUT_S, AioKafka, Confluent, KafkaPython, topic_name, until
from records import CODECS, RECORDS

ALL = os.environ.get("CLIENTS") == "all"


def setUpModule():
    SERVER.start()
    print(f"clients: confluent-kafka {confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]}), "
          f"kafka-python {kafka.__version__}, aiokafka {aiokafka.__version__}, Python {platform.python_version()}")


def tearDownModule():
    SERVER.stop()


PYTHONS = [Confluent, KafkaPython, AioKafka]
CLIENTS = list(PYTHONS)
if ALL:
    CLIENTS += [program for program in programs.PROGRAMS if program.why_not() is None]


def readers(writer, codec):
    """Python's clients read everything; everybody reads everybody, and every codec, but not each of the two together: those of
    other languages are a process each time."""
    everybody = writer is Confluent or codec == "zstd"
    return [one for one in CLIENTS if (everybody or one in PYTHONS) and getattr(one, "reads", bool)(written(writer))]


def written(writer):
    """The records as a client can write them."""
    return getattr(writer, "RECORDS", RECORDS)


def shown(reader, records):
    """Those records as a client can show them."""
    return [(key, value, reader.shows(headers)) for key, value, headers in records] if hasattr(reader, "shows") else records


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
                        self.assertEqual(reader.consume(topic, len(RECORDS)), shown(reader, written(writer)))

    def test_a_topics_own_codec(self):
        for wanted in ["uncompressed", "gzip", "snappy", "lz4", "zstd"]:
            topic = topic_name()
            Confluent.create(topic, **{"compression.type": wanted})
            for codec in CODECS:
                Confluent.produce(topic, codec, idempotent=True)
            for reader in readers(Confluent, "zstd"):
                with self.subTest(wanted=wanted, reader=reader.name):
                    expected = len(CODECS) * shown(reader, written(Confluent))
                    self.assertEqual(reader.consume(topic, len(expected)), expected)

    def test_idempotent_producers(self):
        for writer in PYTHONS:
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


@unittest.skipUnless(shutil.which("kcat"), "kcat is not installed")
class Kcat(unittest.TestCase):
    """Its groups are in test_programs.py."""

    def test_lines_go_in_and_come_out_in_every_codec(self):
        lines = [f"k{number}:line {number}" for number in range(100)]
        for codec in CODECS:
            with self.subTest(codec=codec):
                topic = topic_name()
                environment.run(["kcat", "-b", SERVER.kafka, "-P", "-t", topic, "-K", ":", "-z", codec], "\n".join(lines))
                shown = environment.run(["kcat", "-b", SERVER.kafka, "-C", "-t", topic, "-K", ":", "-e", "-q"])
                self.assertEqual(shown.splitlines(), lines)
                found = KafkaPython.consume(topic, len(lines))
                self.assertEqual([f"{key.decode()}:{value.decode()}" for key, value, _ in found], lines)
                listed = json.loads(environment.run(["kcat", "-b", SERVER.kafka, "-L", "-J", "-t", topic]))
                self.assertEqual([len(one["partitions"]) for one in listed["topics"]], [1])

    def test_it_reads_what_others_wrote_in_every_codec(self):
        for codec in CODECS:
            with self.subTest(codec=codec):
                topic = topic_name()
                Confluent.create(topic)
                AioKafka.produce(topic, codec)
                shown = environment.run(["kcat", "-b", SERVER.kafka, "-C", "-t", topic, "-e", "-q", "-f", "%K %S\\n"])
                size = lambda one: -1 if one is None else len(one)
                self.assertEqual(shown.splitlines(), [f"{size(key)} {size(value)}" for key, value, _ in RECORDS])

    def test_it_says_what_was_refused(self):
        topic = topic_name()
        Confluent.create(topic, **{"max.message.bytes": "2000"})
        produce = ["kcat", "-b", SERVER.kafka, "-P", "-t", topic]
        done = subprocess.run(produce, input=b"x" * 5_000, stderr=subprocess.PIPE, timeout=TIMEOUT_S)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"Message size too large", done.stderr)
        consume = ["kcat", "-b", SERVER.kafka, "-C", "-t", topic, "-o", "1000", "-X", "topic.auto.offset.reset=error"]
        done = subprocess.run(consume, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT_S)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"Offset out of range", done.stderr)


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

    def test_settings_of_the_broker_change_while_it_runs(self):
        kinds = confluent_admin.AlterConfigOpType

        def alter(broker, name, value, operation=kinds.SET):
            entry = confluent_admin.ConfigEntry(name, value, incremental_operation=operation)
            resource = confluent_admin.ConfigResource("broker", broker, incremental_configs=[entry])
            return self.admin.incremental_alter_configs([resource])[resource]

        def show(kind, name, setting):
            resource = confluent_admin.ConfigResource(kind, name)
            config = self.admin.describe_configs([resource])[resource].result(TIMEOUT_S)[setting]
            return config.value, confluent_admin.ConfigSource(config.source).name

        topic = topic_name()
        Confluent.create(topic)
        alter("1", "log.retention.ms", "70000").result(TIMEOUT_S)
        self.assertEqual(show("topic", topic, "retention.ms"), ("70000", "DYNAMIC_BROKER_CONFIG"))
        self.assertEqual(show("broker", "1", "log.retention.ms"), ("70000", "DYNAMIC_BROKER_CONFIG"))
        alter("1", "log.cleanup.policy", "compact", kinds.APPEND).result(TIMEOUT_S)
        self.assertEqual(show("topic", topic, "cleanup.policy")[0], "delete,compact")
        SERVER.kill()
        SERVER.start()
        self.admin = Confluent.admin()
        self.assertEqual(show("topic", topic, "retention.ms"), ("70000", "DYNAMIC_BROKER_CONFIG"))
        for name in ["log.retention.ms", "log.cleanup.policy"]:
            alter("1", name, None, kinds.DELETE).result(TIMEOUT_S)
        self.assertEqual(show("topic", topic, "retention.ms"), ("604800000", "DEFAULT_CONFIG"))
        self.assertEqual(self.refused(alter("1", "num.partitions", "3")), "INVALID_REQUEST")

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
        wanted, others, most_bytes = 10_000, 1_000, 64 << 10
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The server has as many files open as the test, in a process of its own.
        count = min(wanted, hard - others)
        if count < wanted:
            print(f"clients: {count} idle connections instead of {wanted}, since no more than {hard} files may be open")
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

    def test_refusals_reach_kafka_python(self):
        topic, group, now_ms = topic_name(), uuid.uuid4().hex, int(time.time() * 1_000)
        Confluent.create(topic, **{"max.message.bytes": "2000"})
        producer = KafkaPython.producer(enable_idempotence=False)
        with self.assertRaises(kafka.errors.MessageSizeTooLargeError):
            producer.send(topic, b"x" * 5_000).get(TIMEOUT_S)
        with self.assertRaises(kafka.errors.InvalidTimestampError):
            producer.send(topic, b"x", timestamp_ms=now_ms + 7_200_000).get(TIMEOUT_S)
        # And it goes on.
        self.assertEqual(producer.send(topic, b"x").get(TIMEOUT_S).offset, 0)
        producer.close()
        consumer = KafkaPython.consumer(topic, group_id=group)
        until(lambda: consumer.poll(100), "the record")
        consumer.commit()
        admin = kafka.admin.KafkaAdminClient(bootstrap_servers=SERVER.kafka)
        self.assertEqual(admin.delete_groups([group]), {group: "NonEmptyGroupError"})
        consumer.close()
        self.assertEqual(admin.delete_groups([group]), {group: "OK"})
        self.assertEqual(admin.delete_groups([group]), {group: "GroupIdNotFoundError"})
        admin.close()

    def test_refusals_reach_aiokafka(self):
        topic, now_ms = topic_name(), int(time.time() * 1_000)
        Confluent.create(topic, **{"max.message.bytes": "2000"})

        async def run():
            producer = aiokafka.AIOKafkaProducer(bootstrap_servers=SERVER.kafka)
            await producer.start()
            with self.assertRaises(aiokafka.errors.MessageSizeTooLargeError):
                await producer.send_and_wait(topic, b"x" * 5_000)
            with self.assertRaises(aiokafka.errors.InvalidTimestampError):
                await producer.send_and_wait(topic, b"x", timestamp_ms=now_ms + 7_200_000)
            # And it goes on.
            self.assertEqual((await producer.send_and_wait(topic, b"x")).offset, 0)
            await producer.stop()
        asyncio.run(run())

    def test_refusals_reach_the_producer(self):
        topic = topic_name()
        Confluent.create(topic, **{"max.message.bytes": "2000"})
        errors = []
        producer = Confluent.producer()
        producer.produce(topic, "x" * 5_000, on_delivery=lambda error, _: errors.append(error))
        producer.flush(TIMEOUT_S)
        self.assertEqual([error.name() for error in errors], ["MSG_SIZE_TOO_LARGE"])

    def test_times_that_are_too_far_away_reach_the_producer(self):
        topic, now_ms = topic_name(), int(time.time() * 1_000)
        Confluent.create(topic, **{"message.timestamp.before.max.ms": "3600000"})
        told = []
        producer = Confluent.producer()
        for offset_ms in [-7_200_000, 0, 7_200_000]:
            producer.produce(topic, "x", timestamp=now_ms + offset_ms,
                             on_delivery=lambda error, _: told.append(error and error.name()))
            producer.flush(TIMEOUT_S)
        self.assertEqual(told, ["INVALID_TIMESTAMP", None, "INVALID_TIMESTAMP"])
        # Of a batch with one such record nothing is kept.
        producer = Confluent.producer(**{"linger.ms": 500})
        for offset_ms in [0, -7_200_000, 0]:
            producer.produce(topic, "x", timestamp=now_ms + offset_ms, partition=0,
                             on_delivery=lambda error, _: told.append(error and error.name()))
        producer.flush(TIMEOUT_S)
        self.assertEqual(len([one for one in told[3:] if one is None]), 0)
        self.assertIn("INVALID_TIMESTAMP", told[3:])
        self.assertEqual(len(Confluent.values(topic)), 1)


if __name__ == "__main__":
    unittest.main()
