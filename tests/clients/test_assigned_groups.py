#!/usr/bin/env python3
"""Groups whose partitions the broker assigns (KIP-848), of librdkafka's members and, in the long form, of Java's."""

import os
import subprocess
import sys
import threading
import unittest
import uuid

sys.dont_write_bytecode = True  # nothing stays in the tree

import environment

environment.enter()

import confluent_kafka
import confluent_kafka.admin as confluent_admin

import programs
from pythons import SERVER, TIMEOUT_S, Confluent, topic_name, until


def setUpModule():
    SERVER.start()


def tearDownModule():
    SERVER.stop()


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

    CLIENT = programs.Java("4.3.1")

    def __init__(self, topic, group, instance_id=None):
        path = self.CLIENT.path("Member")
        command = ["java", *programs.JVM, "-cp", path, "Member", SERVER.kafka, topic, group, *filter(None, [instance_id])]
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


MEMBERS = [LibrdkafkaMember]
if os.environ.get("CLIENTS") == "all" and JavaMember.CLIENT.why_not() is None:
    MEMBERS.append(JavaMember)


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


if __name__ == "__main__":
    unittest.main()
