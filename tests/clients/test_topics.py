#!/usr/bin/env python3
"""Topics that change under running producers and consumers: they get partitions, are deleted, are there again. And those that
are not there.

Part of `make test`, with librdkafka; `make test-clients` asks Java's clients as well.
"""

import asyncio
import functools
import os
import shutil
import subprocess
import sys
import threading
import unittest
import uuid

sys.dont_write_bytecode = True  # nothing stays in the tree

import environment

environment.enter()

import aiokafka
import aiokafka.admin
import aiokafka.errors
import confluent_kafka
import confluent_kafka.admin as confluent_admin
import kafka
import kafka.admin
import kafka.errors

import programs
from pythons import SERVER, TIMEOUT_S, Confluent, KafkaPython, topic_name, until

ALL = os.environ.get("CLIENTS") == "all"
# The last of them is the consumer as well: it is asked for a group whose partitions the broker assigns.
JAVA = [version for version in ["3.9.1", "4.3.1"] if ALL and programs.Java(version).why_not() is None]
# Old records in each partition, more than the new topic gets: a consumer that goes on with an old offset in it is told that it
# is out of range, and begins anew. Where it is not, librdkafka leaves out what is before it.
OLD = 3_000
REFRESH_MS = 300
# How many records a producer is to have waiting, or acknowledged, before it counts as one that waits, or goes on.
SOME = 100


def setUpModule():
    # Nobody but the test creates the topic, so that it is gone for as long as the test wants.
    SERVER.settings += ["--set", "auto.create.topics.enable=false"]
    SERVER.start()


def tearDownModule():
    SERVER.stop()


class LibrdkafkaWriter:
    """Numbers, about 500 a second, with keys that reach every partition, whatever the answers; what they were."""

    def __init__(self, topic, **settings):
        self.topic, self.next, self.stopped = topic, 0, threading.Event()
        self.acknowledged, self.failed, self.fatal = {}, {}, []
        self.producer = Confluent.producer(**{"enable.idempotence": True, "topic.metadata.refresh.interval.ms": REFRESH_MS,
                                              "error_cb": lambda _: None} | settings)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stopped.wait(0.002) and not self.fatal:
            number = self.next
            try:
                self.producer.produce(self.topic, str(number), str(number % 50), on_delivery=self.delivered(number))
                self.producer.poll(0)
            except confluent_kafka.KafkaException as error:
                if error.args[0].fatal():
                    self.fatal.append(error.args[0])
                self.failed[number] = error.args[0]
            self.next += 1
        self.producer.flush(TIMEOUT_S)

    def delivered(self, number):
        def told(error, message):
            if error is None:
                self.acknowledged[number] = message.partition(), message.offset()
            else:
                self.failed[number] = error
        return told

    def waits(self):
        return len(self.producer) >= SOME or len(self.failed) >= SOME

    def stop(self):
        self.stopped.set()
        self.thread.join()


class LibrdkafkaReader:
    """The only member of its group: what it has read, by partitions."""

    reads_all = True  # Of a topic that is there again before it has noticed that it was gone.

    def __init__(self, topic):
        self.read, self.assigned, self.failures, self.stopped = {}, [], [], threading.Event()
        self.consumer = Confluent.consumer(**{"enable.auto.commit": True, "auto.commit.interval.ms": 200,
                                              "topic.metadata.refresh.interval.ms": REFRESH_MS})
        self.consumer.subscribe([topic])
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while not self.stopped.is_set():
                for one in self.consumer.consume(500, 0.1):
                    if one.error() is None:
                        self.read.setdefault(one.partition(), set()).add(one.value().decode())
                    elif one.error().code() != confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:
                        self.failures.append(one.error())
                self.assigned = self.consumer.assignment()
        except Exception as error:  # It is the test that fails, not the thread.
            self.failures.append(error)

    def stop(self):
        if not self.stopped.is_set():
            self.stopped.set()
            self.thread.join()
            self.consumer.close()


class JavaProcess:
    """One of Kafka's own clients, a line for each thing that it says."""

    def __init__(self, version, program, *arguments):
        client = programs.Java(version)
        command = ["java", *programs.JVM, "-cp", client.path(program), program, SERVER.kafka, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        preexec_fn=environment.with_parent, text=True)
        self.said = ""
        self.threads = [threading.Thread(target=self.run), threading.Thread(target=self.listen)]
        for thread in self.threads:
            thread.start()

    def run(self):
        for line in self.process.stdout:
            self.hear(*line.split())

    def listen(self):
        self.said = self.process.stderr.read()

    def stop(self):
        if not self.process.stdin.closed:
            self.process.stdin.close()
            for thread in self.threads:
                thread.join()
            self.process.wait(TIMEOUT_S)
            self.process.stdout.close()
            self.process.stderr.close()


class JavaWriter(JavaProcess):
    def __init__(self, version, topic):
        self.next, self.acknowledged, self.failed, self.fatal = 0, {}, {}, []
        super().__init__(version, "Writer", topic)

    def hear(self, what, number, *answer):
        if what == "sent":
            self.next = int(number) + 1
        elif what == "acknowledged":
            self.acknowledged[int(number)] = tuple(map(int, answer))
        else:
            self.failed[int(number)] = answer

    def waits(self):
        return self.next - len(self.acknowledged) - len(self.failed) >= SOME or len(self.failed) > 0


class JavaReader(JavaProcess):
    """It does not say which partition a value is of.

    Where a topic is there again before it has noticed that it was gone, it asks where its epoch ends, takes the new topic for one
    that was truncated, and goes on from where that ends now.
    """

    reads_all = False

    def __init__(self, version, topic):
        self.read, self.assigned, self.failures = {None: set()}, [], []
        super().__init__(version, "Member", topic, uuid.uuid4().hex)

    def hear(self, first, *rest):
        if first == "assigned":
            self.assigned = list(rest)
        else:
            self.read[None].add(first)


class Missing(unittest.TestCase):
    """A topic that is not there, and that nobody creates."""

    def test_confluent_kafka(self):
        topic, told = topic_name(), []
        producer = Confluent.producer(**{"topic.metadata.propagation.max.ms": 0})
        producer.produce(topic, "x", on_delivery=lambda error, _: told.append(error.name()))
        producer.flush(TIMEOUT_S)
        self.assertEqual(told, ["UNKNOWN_TOPIC_OR_PART"])
        consumer = Confluent.consumer()
        consumer.subscribe([topic])
        found = until(lambda: consumer.poll(1), "an answer")
        self.assertEqual(found.error().name(), "UNKNOWN_TOPIC_OR_PART")
        with self.assertRaises(confluent_kafka.KafkaException) as raised:
            consumer.commit(offsets=[confluent_kafka.TopicPartition(topic, 0, 1)], asynchronous=False)
        self.assertEqual(raised.exception.args[0].name(), "UNKNOWN_TOPIC_OR_PART")
        consumer.close()

    def test_kafka_python(self):
        topic = topic_name()
        producer = KafkaPython.producer(max_block_ms=1_000)
        # It waits for the topic, and does not say for what.
        with self.assertRaises(kafka.errors.KafkaTimeoutError):
            producer.send(topic, b"x").get(TIMEOUT_S)
        producer.close()
        consumer = KafkaPython.consumer()
        self.assertNotIn(topic, consumer.topics())
        self.assertFalse(consumer.partitions_for_topic(topic))
        consumer.close()
        admin = kafka.admin.KafkaAdminClient(bootstrap_servers=SERVER.kafka)
        self.assertEqual(admin.describe_topics([topic])[0]["error_code"], kafka.errors.UnknownTopicOrPartitionError.errno)
        admin.close()

    def test_aiokafka(self):
        topic = topic_name()

        async def run():
            producer = aiokafka.AIOKafkaProducer(bootstrap_servers=SERVER.kafka, request_timeout_ms=1_000)
            await producer.start()
            with self.assertRaises(aiokafka.errors.UnknownTopicOrPartitionError):
                await producer.send_and_wait(topic, b"x")
            await producer.stop()
            consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=SERVER.kafka)
            await consumer.start()
            self.assertNotIn(topic, await consumer.topics())
            self.assertIsNone(consumer.partitions_for_topic(topic))
            await consumer.stop()
            admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=SERVER.kafka)
            await admin.start()
            [described] = await admin.describe_topics([topic])
            self.assertEqual(described["error_code"], aiokafka.errors.UnknownTopicOrPartitionError.errno)
            await admin.close()
        with self.assertLogs("aiokafka", "WARNING"):
            asyncio.run(asyncio.wait_for(run(), TIMEOUT_S))

    @unittest.skipUnless(shutil.which("kcat"), "kcat is not installed")
    def test_kcat(self):
        command = ["kcat", "-b", SERVER.kafka, "-C", "-t", topic_name(), "-e"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT_S)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"Unknown topic or partition", done.stderr)


class Topics(unittest.TestCase):
    def setUp(self):
        self.admin = Confluent.admin()

    def create(self, partitions):
        self.admin.create_topics([confluent_admin.NewTopic(self.topic, partitions, 1)])[self.topic].result(TIMEOUT_S)

    def fill(self, *partitions):
        producer = Confluent.producer()
        for number in range(OLD * len(partitions)):
            producer.produce(self.topic, f"old {number}", partition=partitions[number % len(partitions)])
            producer.poll(0)
        self.assertEqual(producer.flush(TIMEOUT_S), 0)

    def content(self, partitions):
        """Each partition's values as a new consumer reads them."""
        consumer = Confluent.consumer(**{"enable.partition.eof": True})
        consumer.assign([confluent_kafka.TopicPartition(self.topic, index, 0) for index in range(partitions)])
        found, ended = [[] for _ in range(partitions)], set()

        def all_read():
            for one in consumer.consume(1_000, 0.2):
                if one.error() is None:
                    found[one.partition()].append(one.value().decode())
                else:
                    self.assertEqual(one.error().code(), confluent_kafka.KafkaError._PARTITION_EOF)
                    ended.add(one.partition())
            return len(ended) == partitions
        until(all_read, "the ends of all partitions")
        consumer.close()
        return found

    def uses(self, writer, reader, partitions, since=0, reads_all=True):
        """Waits until records from that number on are acknowledged in so many partitions, and are read, or as many of them."""
        def acknowledged():
            self.assertEqual([str(error) for error in writer.fatal], [])
            return {number: at for number, at in list(writer.acknowledged.items()) if number >= since}

        def written():
            found = acknowledged()
            return len(found) >= SOME and {partition for partition, _ in found.values()} == set(range(partitions)) and found
        found = until(written, f"records are written to {partitions} partitions")
        if reads_all:
            until(lambda: set(map(str, found)) <= self.values(reader), "what was written is read")
        else:
            until(lambda: len(set(map(str, acknowledged())) & self.values(reader)) >= SOME, "what is written is read")

    @staticmethod
    def values(reader):
        return set().union(*(set(one) for one in list(reader.read.values())))

    def go_on(self, writer, reader, gap):
        self.uses(writer, reader, 2)
        self.admin.create_partitions([confluent_admin.NewPartitions(self.topic, 4)])[self.topic].result(TIMEOUT_S)
        self.fill(2, 3)
        self.uses(writer, reader, 4)

        self.admin.delete_topics([self.topic])[self.topic].result(TIMEOUT_S)
        old = set(writer.acknowledged)
        if gap:
            until(lambda: not reader.assigned, "the consumer notices that the topic is gone")
            until(writer.waits, "the producer notices that the topic is gone")
        self.create(3)
        # What it is given from now on comes into the new topic, but for what it still thinks is for the fourth partition.
        reads_all = gap or reader.reads_all
        self.uses(writer, reader, 3, writer.next, reads_all)
        # From here on there is no excuse.
        since = 1 + max(int(value) for values in self.content(3) for value in values)
        self.uses(writer, reader, 3, since)
        writer.stop()
        self.assertEqual({number: str(error) for number, error in writer.failed.items() if number >= since}, {})
        content = self.content(3)
        for values in content:
            numbers = list(map(int, values))
            self.assertEqual(numbers, sorted(set(numbers)), "each once, and in order")
        found = {value for values in content for value in values}
        # What is acknowledged after the deletion is in the new topic, but for what comes late from the old one, with offsets that
        # the new one does not have.
        new = {number: at for number, at in writer.acknowledged.items() if number not in old and at[1] < OLD}
        self.assertEqual({number: at for number, at in new.items() if str(number) not in content[at[0]]}, {})
        if reads_all:
            until(lambda: found <= self.values(reader), "the whole new topic is read")
        reader.stop()
        self.assertEqual(reader.failures, [])

    def clients(self):
        """Pairs of what makes a producer and what makes a consumer."""
        yield LibrdkafkaWriter, LibrdkafkaReader
        for version in JAVA:
            yield functools.partial(JavaWriter, version), functools.partial(JavaReader, JAVA[-1])

    def begin(self, writer, reader):
        self.topic = topic_name()
        self.create(2)
        self.fill(0, 1)
        made = writer(self.topic), reader(self.topic)
        for one in made:
            self.addCleanup(one.stop)
        return made

    def test_running_clients_go_on_when_a_topic_is_created_anew(self):
        for kinds in self.clients():
            with self.subTest(kinds):
                self.go_on(*self.begin(*kinds), gap=False)

    def test_running_clients_go_on_when_a_topic_was_gone_for_a_while(self):
        for kinds in self.clients():
            with self.subTest(kinds):
                self.go_on(*self.begin(*kinds), gap=True)

    def test_running_clients_go_on_when_the_producer_gave_records_up_meanwhile(self):
        # By itself it waits for half a minute for a topic that is not there.
        patience = {"topic.metadata.propagation.max.ms": 0}
        writer = functools.partial(LibrdkafkaWriter, **patience)
        self.go_on(*self.begin(writer, LibrdkafkaReader), gap=True)


if __name__ == "__main__":
    unittest.main()
