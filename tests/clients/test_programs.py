#!/usr/bin/env python3
"""Kafka clients as programs, against the real server: groups, offsets, administration, refusals, transactions, quick starts.

`make test-clients` runs it; what they write and read of each other's is part of test_clients.py.
"""

import os
import subprocess
import sys
import threading
import time
import unittest
import uuid

sys.dont_write_bytecode = True  # nothing stays in the tree

import environment

environment.enter()

import confluent_kafka

import programs
from pythons import SERVER, TIMEOUT_S, Confluent, topic_name, until

PARTITIONS = 6

# What the steps of `admin` answer; errors by Kafka's numbers.
ADMIN = {
    "create": "0",
    "create again": "36",  # TOPIC_ALREADY_EXISTS
    "create a bad name": "17",  # INVALID_TOPIC_EXCEPTION
    "create with 3 replicas": "38",  # INVALID_REPLICATION_FACTOR
    "create with an unknown config": "40",  # INVALID_CONFIG
    "partitions": "5",
    "fewer partitions": "37",  # INVALID_PARTITIONS
    "retention.ms": "70000",
    "delete": "0",
    "delete again": "3",  # UNKNOWN_TOPIC_OR_PARTITION
}
# INVALID_PRODUCER_EPOCH, PRODUCER_FENCED, and librdkafka's own number.
FENCED = ["47", "90", "-144"]
CONFIGS = ["create with an unknown config", "fewer partitions", "retention.ms"]


def setUpModule():
    SERVER.start()


def tearDownModule():
    SERVER.stop()


class Load:
    """Records to every partition in turn, about 500 a second, until it is stopped; which were acknowledged."""

    def __init__(self, topic):
        self.topic, self.sent, self.failed = topic, set(), []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def delivered(self, error, message):
        if error is not None:
            self.failed.append(error)
        else:
            self.sent.add((message.partition(), message.offset()))

    def run(self):
        producer = Confluent.producer(**{"enable.idempotence": True})
        number = 0
        while not self.ended.wait(0.002):
            producer.produce(self.topic, str(number), partition=number % PARTITIONS, on_delivery=self.delivered)
            producer.poll(0)
            number += 1
        if producer.flush(TIMEOUT_S) != 0:
            self.failed.append("not all was sent")

    def stop(self):
        self.ended.set()
        self.thread.join()
        return self.sent


class Member:
    """A process in a group, and what it has read."""

    def __init__(self, program, topic, group):
        self.found, self.program = [], program
        self.process = subprocess.Popen(program.command("group", topic, group), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=environment.with_parent)
        self.threads = [threading.Thread(target=self.read), threading.Thread(target=self.listen)]
        self.said = b""
        for thread in self.threads:
            thread.start()

    def read(self):
        for line in self.process.stdout:
            partition, offset = line.split()
            self.found.append((int(partition), int(offset)))

    def listen(self):
        self.said = self.process.stderr.read()

    def reads_on(self, partitions=1):
        """Whether it reads from so many partitions from now on: asked again and again."""
        since = len(self.found)

        def enough():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.said.decode()[-2000:]}"
            return len({partition for partition, _ in self.found[since:]}) >= partitions
        return enough

    def end(self, how):
        """Ends it by `how`; its exit code."""
        how()
        code = self.process.wait(TIMEOUT_S)
        for thread in self.threads:
            thread.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()
        return code

    def leave(self):
        code = self.end(lambda: self.program.leave(self.process))
        assert code == 0, f"it left with {code}: {self.said.decode()[-2000:]}"

    def kill(self):
        if self.process.poll() is None:
            self.end(self.process.kill)


class Groups:
    program = None

    def test_members_join_leave_and_die_under_load(self):
        if "group" in self.program.lacks:
            self.skipTest(f"{self.program.name} has no groups")
        topic, group = topic_name(), uuid.uuid4().hex
        Confluent.create(topic, PARTITIONS)
        load = Load(topic)
        self.addCleanup(load.stop)
        members = []

        def join():
            members.append(Member(self.program, topic, group))
            self.addCleanup(members[-1].kill)
            until(members[-1].reads_on(), "a member that joins reads")
            return members[-1]

        first, second, third = join(), join(), join()
        first.leave()
        for member in (second, third):
            until(member.reads_on(), "those that stay read on")
        second.kill()
        until(third.reads_on(PARTITIONS), "the one that is left reads everything")
        fourth = join()
        until(third.reads_on(), "the one that stayed reads on")
        sent = load.stop()
        self.assertEqual(load.failed, [])
        until(lambda: len(sent - {one for member in members for one in member.found}) <= self.program.forgets, "all is read")
        third.leave()
        fourth.leave()

        found = {one for member in members for one in member.found}
        self.assertLessEqual(found, sent)
        self.assertLessEqual(len(sent - found), self.program.forgets)
        if self.program.commits_first:
            # Only what the killed one had read and not committed is read once more.
            others = sorted(one for member in (first, third, fourth) for one in member.found)
            self.assertEqual(len(others), len(set(others)))
        ends = {partition: 1 + max(offset for number, offset in sent if number == partition) for partition in range(PARTITIONS)}
        wanted = [confluent_kafka.ConsumerGroupTopicPartitions(group)]
        admin = Confluent.admin()  # What it began ends with it.
        answer = admin.list_consumer_group_offsets(wanted)[group].result(TIMEOUT_S)
        self.assertEqual({one.partition: one.offset for one in answer.topic_partitions}, ends)


class Verbs(Groups):
    """What every program is asked for."""

    maxDiff = 2000

    def answers(self, verb, topic, *argument):
        """What its steps print: the last of each name."""
        return dict(line.split(": ", 1) for line in self.program.run(verb, topic, *argument))

    def test_offsets(self):
        topic = topic_name()
        Confluent.create(topic)
        producer = Confluent.producer()
        for number in range(10):
            producer.produce(topic, str(number), timestamp=1_000 + number, partition=0)
        self.assertEqual(producer.flush(TIMEOUT_S), 0)
        expected = {"earliest": "0", "latest": "10", "at 1004": "4", "committed": "7 note"}
        if "committed" in self.program.lacks:
            del expected["committed"]
        elif "note" in self.program.lacks:
            expected["committed"] = "7 "
        self.assertEqual(self.answers("offsets", topic, uuid.uuid4().hex), expected)

    def test_administration(self):
        expected = dict(ADMIN)
        if "configs" in self.program.lacks:
            expected = {step: answer for step, answer in ADMIN.items() if step not in CONFIGS} | {"partitions": "3"}
        self.assertEqual(self.answers("admin", topic_name()), expected)

    def test_refusals(self):
        topic = topic_name()
        Confluent.create(topic, **{"max.message.bytes": "2000"})
        expected = {"too large": "10", "out of range": "1"}  # MESSAGE_TOO_LARGE, OFFSET_OUT_OF_RANGE
        for step in self.program.lacks:
            expected.pop(step, None)
        self.assertEqual(self.answers("refused", topic), expected)

    def test_transactions(self):
        if "transactions" in self.program.lacks:
            self.skipTest(f"{self.program.name} has no transactions")
        topic, group = topic_name(), uuid.uuid4().hex
        output = f"{topic}-out"
        Confluent.create(topic)
        Confluent.create(output)
        producer = Confluent.producer()
        for number in range(10):
            producer.produce(topic, str(number), partition=0)
        self.assertEqual(producer.flush(TIMEOUT_S), 0)
        found = self.answers("transactions", topic, group)
        self.assertIn(found.pop("fenced"), FENCED)
        committed = ["kept", *map(str, range(10)), "successor"]
        expected = {"read": " ".join(committed), "state": "CompleteCommit"}
        for step in self.program.lacks:
            expected.pop(step, None)
            found.pop(step, None)
        self.assertEqual(found, expected)
        self.assertEqual(Confluent.values(output), committed)
        self.assertEqual(Confluent.values(output, "read_uncommitted"), ["kept", "dropped", *committed[1:-1], "fenced", "successor"])
        self.assertEqual(Confluent.committed(group, topic), 10)

    def test_its_quick_start(self):
        topic = topic_name()
        Confluent.create(topic)
        self.assertEqual(self.program.run("start", topic)[-1:], [self.program.start])


for one in [*programs.PYTHONS, *programs.PROGRAMS, programs.Kcat("kcat")]:
    reason = one.why_not()
    name = "".join(part.capitalize() for part in one.name.replace(".", "_").replace("-", " ").split())
    kind = Groups if isinstance(one, programs.Kcat) else Verbs
    globals()[name] = unittest.skipIf(reason, reason)(type(name, (kind, unittest.TestCase), {"program": one}))


if __name__ == "__main__":
    if os.environ.get("CLIENTS") == "all":
        unittest.main()
    print("clients: programs are run by make test-clients")
