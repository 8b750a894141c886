#!/usr/bin/env python3
"""Kafka Streams, exactly once, against the real server: a word count that is killed, and whose server is killed.

`make test-clients` runs it.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.dont_write_bytecode = True  # nothing stays in the tree

import environment

environment.enter()

import confluent_kafka

import programs
from pythons import SERVER, TIMEOUT_S, Confluent, topic_name

VERSION = "4.3.1"
WORDS, LINES = 20, 3_000
REASON = programs.Java(VERSION).why_not()


def setUpModule():
    SERVER.start()


def tearDownModule():
    SERVER.stop()


def word_count():
    """Its command, without arguments."""
    folder = programs.BUILT / f"streams-{VERSION}"
    path = f"{folder / 'classes'}{os.pathsep}{programs.jars('streams.xml', VERSION, folder / 'jars')}"
    programs.build("javac", "-d", folder / "classes", "-cp", path, programs.HERE / "java" / "WordCount.java")
    return ["java", *programs.JVM, "-cp", path, "WordCount"]


@unittest.skipIf(REASON, REASON)
class Streams(unittest.TestCase):
    def begin(self):
        home = tempfile.TemporaryDirectory(prefix="mainstem-streams-")
        self.addCleanup(home.cleanup)
        process = subprocess.Popen([*self.command, SERVER.kafka, self.topic, self.output, home.name], stdin=subprocess.PIPE,
                                   preexec_fn=environment.with_parent)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def counts(self, at_least, seconds):
        """Each word's counts, as they were committed, in their order, once there are so many of them."""
        consumer = Confluent.consumer(**{"isolation.level": "read_committed"})
        consumer.assign([confluent_kafka.TopicPartition(self.output, index, 0) for index in range(2)])
        found, total, end = {}, 0, time.monotonic() + seconds
        while total < at_least and time.monotonic() < end:
            for one in consumer.consume(1_000, 0.5):
                if one.error() is None:
                    found.setdefault(one.key().decode(), []).append(int(one.value()))
                    total += 1
        consumer.close()
        self.assertGreaterEqual(total, at_least)
        return found

    def test_each_word_is_counted_once_through_kills_of_the_program_and_of_the_server(self):
        self.command = word_count()
        self.topic = topic_name()
        self.output = f"{self.topic}-counts"
        Confluent.create(self.topic, 2)
        Confluent.create(self.output, 2)

        def produce():
            source = Confluent.producer(**{"enable.idempotence": True, "message.timeout.ms": 120_000})
            for number in range(LINES):
                source.produce(self.topic, f"w{number % WORDS} all", partition=number % 2)
                source.poll(0.005)
            source.flush(2 * TIMEOUT_S)

        producing = threading.Thread(target=produce)
        producing.start()
        self.addCleanup(producing.join)
        first = self.begin()
        self.counts(LINES // 4, 60)
        first.kill()
        first.wait()
        second = self.begin()
        self.counts(LINES, 90)
        SERVER.kill()
        SERVER.start()
        producing.join()
        found = self.counts(2 * LINES, 120)
        second.stdin.close()
        self.assertEqual(second.wait(TIMEOUT_S), 0)
        each = LINES // WORDS
        expected = {f"w{number}": list(range(1, each + 1)) for number in range(WORDS)} | {"all": list(range(1, LINES + 1))}
        self.assertEqual(found, expected)
        # And nothing comes after it.
        self.assertEqual(self.counts(2 * LINES, 10), expected)


if __name__ == "__main__":
    if os.environ.get("CLIENTS") == "all":
        unittest.main()
    print("clients: Kafka Streams is run by make test-clients")
