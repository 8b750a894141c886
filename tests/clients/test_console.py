#!/usr/bin/env python3
"""Kafka's own console tools, against the real server: what the scripts `kafka-*.sh` run. Part of `make test-clients`."""

import os
import re
import sys
import unittest
import uuid

sys.dont_write_bytecode = True  # nothing stays in the tree

import environment

environment.enter()

import programs
from pythons import SERVER, TIMEOUT_S, Confluent, topic_name

VERSION = "4.3.1"
LINES = [f"k{number}:line {number}" for number in range(50)]


def setUpModule():
    SERVER.start()


def tearDownModule():
    SERVER.stop()


def tool(name, *arguments, text=""):
    """What `kafka-NAME.sh --bootstrap-server …` prints."""
    path = programs.jars("tools.xml", VERSION, programs.BUILT / f"tools-{VERSION}")
    command = ["java", *programs.JVM, "-cp", path, name, "--bootstrap-server", SERVER.kafka, *arguments]
    return environment.run(command, text)


REASON = programs.Java(VERSION).why_not()


@unittest.skipIf(REASON, REASON)
class Console(unittest.TestCase):
    def test_topics(self):
        topic = topic_name()
        topics = "org.apache.kafka.tools.TopicCommand"
        tool(topics, "--create", "--topic", topic, "--partitions", "3", "--config", "retention.ms=60000")
        self.assertIn(topic, tool(topics, "--list").split())
        shown = tool(topics, "--describe", "--topic", topic)
        self.assertRegex(shown, rf"Topic: {topic}\s.*PartitionCount: 3\s.*ReplicationFactor: 1\s.*retention\.ms=60000")
        tool(topics, "--alter", "--topic", topic, "--partitions", "5")
        self.assertIn("PartitionCount: 5", tool(topics, "--describe", "--topic", topic))
        tool(topics, "--delete", "--topic", topic)
        self.assertNotIn(topic, tool(topics, "--list").split())

    def test_configs(self):
        topic = topic_name()
        Confluent.create(topic)
        configs, entity = "kafka.admin.ConfigCommand", ["--entity-type", "topics", "--entity-name", topic]
        tool(configs, "--alter", *entity, "--add-config", "retention.ms=70000,cleanup.policy=[compact,delete]")
        shown = tool(configs, "--describe", *entity)
        self.assertIn("retention.ms=70000", shown)
        self.assertIn("cleanup.policy=compact,delete", shown)
        tool(configs, "--alter", *entity, "--delete-config", "retention.ms")
        self.assertNotIn("retention.ms=", tool(configs, "--describe", *entity))
        self.assertIn("num.partitions=1", tool(configs, "--describe", "--entity-type", "brokers", "--entity-name", "1", "--all"))

    def test_configs_of_brokers(self):
        topic = topic_name()
        Confluent.create(topic)
        configs, one = "kafka.admin.ConfigCommand", ["--entity-type", "brokers", "--entity-name", "1"]
        everyone = ["--entity-type", "brokers", "--entity-default"]
        tool(configs, "--alter", *everyone, "--add-config", "log.segment.bytes=2097152,compression.type=lz4")
        tool(configs, "--alter", *one, "--add-config", "log.segment.bytes=3145728")
        self.assertRegex(tool(configs, "--describe", *everyone), r"log\.segment\.bytes=2097152 .*DYNAMIC_DEFAULT_BROKER_CONFIG")
        self.assertRegex(
            tool(configs, "--describe", *one),
            r"log\.segment\.bytes=3145728 .*DYNAMIC_BROKER_CONFIG:log\.segment\.bytes=3145728, "
            r"DYNAMIC_DEFAULT_BROKER_CONFIG:log\.segment\.bytes=2097152, DEFAULT_CONFIG:log\.segment\.bytes=")
        shown = tool(configs, "--describe", "--entity-type", "topics", "--entity-name", topic, "--all")
        self.assertRegex(shown, r"segment\.bytes=3145728 ")
        self.assertRegex(shown, r"compression\.type=lz4 ")
        tool(configs, "--alter", *one, "--delete-config", "log.segment.bytes")
        tool(configs, "--alter", *everyone, "--delete-config", "log.segment.bytes,compression.type")
        self.assertNotIn("log.segment.bytes", tool(configs, "--describe", *everyone))

    def test_producer_consumer_and_groups(self):
        topic, group = topic_name(), uuid.uuid4().hex
        Confluent.create(topic)
        tool("org.apache.kafka.tools.ConsoleProducer", "--topic", topic, "--reader-property", "parse.key=true",
             "--reader-property", "key.separator=:", "--compression-codec", "zstd", text="\n".join(LINES) + "\n")
        shown = tool("org.apache.kafka.tools.consumer.ConsoleConsumer", "--topic", topic, "--group", group, "--from-beginning",
                     "--max-messages", str(len(LINES)), "--formatter-property", "print.key=true", "--formatter-property",
                     "key.separator=:")
        self.assertEqual(shown.splitlines(), LINES)
        groups = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
        self.assertIn(group, tool(groups, "--list").split())
        # Group, topic, partition, current offset, log end, lag.
        self.assertRegex(tool(groups, "--describe", "--group", group), rf"{group}\s+{topic}\s+0\s+50\s+50\s+0\s")
        self.assertRegex(tool(groups, "--describe", "--group", group, "--state"), r"\sEmpty\s")
        tool(groups, "--reset-offsets", "--group", group, "--topic", topic, "--to-offset", "7", "--execute")
        self.assertRegex(tool(groups, "--describe", "--group", group), rf"{group}\s+{topic}\s+0\s+7\s+50\s+43\s")
        tool(groups, "--delete", "--group", group)
        self.assertNotIn(group, tool(groups, "--list").split())

    def test_transactions(self):
        topic = topic_name()
        Confluent.create(topic)
        producer = Confluent.producer(**{"transactional.id": topic})
        producer.init_transactions(TIMEOUT_S)
        producer.begin_transaction()
        producer.produce(topic, "x", partition=0)
        self.assertEqual(producer.flush(TIMEOUT_S), 0)
        transactions = "org.apache.kafka.tools.TransactionsCommand"
        # Transactional id, coordinator, producer id, state.
        self.assertRegex(tool(transactions, "list"), rf"{topic}\s+1\s+\d+\s+Ongoing")
        # Coordinator, transactional id, producer id and epoch, state, timeout, start, duration, partitions.
        shown = tool(transactions, "describe", "--transactional-id", topic)
        self.assertRegex(shown, rf"1\s+{topic}\s+\d+\s+0\s+Ongoing\s+60000\s+\d+\s+\d+\s+{topic}-0")
        # Producer id and epoch, the coordinator's epoch, last sequence and time, the transaction's first offset.
        shown = tool(transactions, "describe-producers", "--topic", topic, "--partition", "0")
        self.assertRegex(shown, r"\d+\s+0\s+\S+\s+0\s+\d+\s+0\s")
        producer.abort_transaction(TIMEOUT_S)
        self.assertRegex(tool(transactions, "list"), rf"{topic}\s+1\s+\d+\s+CompleteAbort")
        self.assertRegex(tool("org.apache.kafka.tools.FeatureCommand", "describe"), r"transaction\.version.*FinalizedVersionLevel: 2")

    def test_internal_topics(self):
        topics = "org.apache.kafka.tools.TopicCommand"
        self.assertIn("__consumer_offsets", tool(topics, "--list").split())
        self.assertNotIn("__consumer_offsets", tool(topics, "--list", "--exclude-internal").split())
        self.assertIn("PartitionCount: 50", tool(topics, "--describe", "--topic", "__transaction_state"))

    def test_offsets_and_the_cluster(self):
        topic = topic_name()
        Confluent.create(topic)
        Confluent.produce(topic, "none")
        self.assertRegex(tool("org.apache.kafka.tools.GetOffsetShell", "--topic", topic), rf"(?m)^{re.escape(topic)}:0:9$")
        self.assertIn(topic, tool("org.apache.kafka.tools.LogDirsCommand", "--describe", "--topic-list", topic))
        versions = tool("org.apache.kafka.tools.BrokerApiVersionsCommand")
        self.assertIn("Produce(0): 0 to 13", versions)


if __name__ == "__main__":
    if os.environ.get("CLIENTS") == "all":
        unittest.main()
    print("clients: Kafka's console tools are run by make test-clients")
