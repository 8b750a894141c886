#!/usr/bin/env python3
"""Transactions by Python's clients, against the real server, and what happens when somebody dies in one.

Part of `make test`. Clients of other languages are asked for the same by test_programs.py.
"""

import asyncio
import multiprocessing
import sys
import unittest
import uuid

sys.dont_write_bytecode = True  # nothing stays in the tree

import environment

environment.enter()

import aiokafka
import aiokafka.errors
import confluent_kafka
import kafka
import kafka.errors

from pythons import SERVER, TIMEOUT_S, Confluent, KafkaPython, topic_name, until

INPUT = [str(number) for number in range(10)]
COMMITTED = ["kept", *INPUT, "successor"]
EVERYTHING = ["kept", "dropped", *INPUT, "fenced", "successor"]


def setUpModule():
    SERVER.start()


def tearDownModule():
    SERVER.stop()


def producer(transactional_id, **settings):
    made = Confluent.producer(**{"transactional.id": transactional_id} | settings)
    made.init_transactions(TIMEOUT_S)
    return made


def write(made, topic, *values):
    """Sent and acknowledged, in the transaction that is open."""
    failed = []
    for value in values:
        made.produce(topic, value, partition=0, on_delivery=lambda error, _: error and failed.append(error))
    assert made.flush(TIMEOUT_S) == 0 and not failed, failed


class Clients(unittest.TestCase):
    """Commit, abort, offsets with the records, a producer that is fenced."""

    def setUp(self):
        self.topic, self.group = topic_name(), uuid.uuid4().hex
        self.output = f"{self.topic}-out"
        Confluent.create(self.topic)
        Confluent.create(self.output)
        source = Confluent.producer()
        for value in INPUT:
            source.produce(self.topic, value, partition=0)
        self.assertEqual(source.flush(TIMEOUT_S), 0)

    def check(self):
        self.assertEqual(Confluent.values(self.output), COMMITTED)
        self.assertEqual(Confluent.values(self.output, "read_uncommitted"), EVERYTHING)
        self.assertEqual(Confluent.committed(self.group, self.topic), len(INPUT))

    def test_confluent_kafka(self):
        first = producer(self.output)
        first.begin_transaction()
        write(first, self.output, "kept")
        first.commit_transaction(TIMEOUT_S)
        first.begin_transaction()
        write(first, self.output, "dropped")
        first.abort_transaction(TIMEOUT_S)
        consumer = Confluent.consumer(**{"group.id": self.group})
        consumer.subscribe([self.topic])
        first.begin_transaction()
        found = []
        while len(found) < len(INPUT):
            found += [one.value() for one in consumer.consume(len(INPUT), 1)]
        write(first, self.output, *found)
        first.send_offsets_to_transaction(consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), TIMEOUT_S)
        first.commit_transaction(TIMEOUT_S)
        consumer.close()
        first.begin_transaction()
        write(first, self.output, "fenced")
        successor = producer(self.output)
        with self.assertRaises(confluent_kafka.KafkaException) as raised:
            first.commit_transaction(TIMEOUT_S)
        self.assertTrue(raised.exception.args[0].fatal())
        successor.begin_transaction()
        write(successor, self.output, "successor")
        successor.commit_transaction(TIMEOUT_S)
        self.check()

    def test_kafka_python(self):
        def begin():
            made = KafkaPython.producer(transactional_id=self.output, acks="all")
            made.init_transactions()
            return made

        def send(made, *values):
            for one in [made.send(self.output, value.encode(), partition=0) for value in values]:
                one.get(TIMEOUT_S)

        first = begin()
        first.begin_transaction()
        send(first, "kept")
        first.commit_transaction()
        first.begin_transaction()
        send(first, "dropped")
        first.abort_transaction()
        first.begin_transaction()
        send(first, *INPUT)
        offsets = {kafka.TopicPartition(self.topic, 0): kafka.OffsetAndMetadata(len(INPUT), "", -1)}
        first.send_offsets_to_transaction(offsets, self.group)
        first.commit_transaction()
        first.begin_transaction()
        send(first, "fenced")
        successor = begin()
        with self.assertRaises(kafka.errors.KafkaError):
            first.commit_transaction()
        successor.begin_transaction()
        send(successor, "successor")
        successor.commit_transaction()
        successor.close()
        self.check()

        for isolation, expected in [("read_committed", COMMITTED), ("read_uncommitted", EVERYTHING)]:
            consumer, written, found = KafkaPython.consumer(isolation_level=isolation), kafka.TopicPartition(self.output, 0), []
            consumer.assign([written])
            while found[-1:] != ["successor"]:
                for records in consumer.poll(1_000).values():
                    found += [one.value.decode() for one in records]
            consumer.close()
            self.assertEqual(found, expected)

    def test_aiokafka(self):
        async def begin():
            made = aiokafka.AIOKafkaProducer(bootstrap_servers=SERVER.kafka, transactional_id=self.output)
            await made.start()
            return made

        async def send(made, *values):
            for value in values:
                await made.send_and_wait(self.output, value.encode(), partition=0)

        async def run():
            first = await begin()
            async with first.transaction():
                await send(first, "kept")
            await first.begin_transaction()
            await send(first, "dropped")
            await first.abort_transaction()
            partition = aiokafka.TopicPartition(self.topic, 0)
            async with first.transaction():
                await send(first, *INPUT)
                await first.send_offsets_to_transaction({partition: len(INPUT)}, self.group)
            await first.begin_transaction()
            await send(first, "fenced")
            successor = await begin()
            with self.assertRaises(aiokafka.errors.ProducerFenced):
                await first.commit_transaction()
            async with successor.transaction():
                await send(successor, "successor")
            await successor.stop()
            await first.stop()

            found = []
            consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=SERVER.kafka, isolation_level="read_committed")
            await consumer.start()
            written = aiokafka.TopicPartition(self.output, 0)
            consumer.assign([written])
            await consumer.seek_to_beginning(written)
            while found[-1:] != ["successor"]:
                found.append((await asyncio.wait_for(consumer.getone(), TIMEOUT_S)).value.decode())
            await consumer.stop()
            self.assertEqual(found, COMMITTED)

        asyncio.run(run())
        self.check()


def stay_in_a_transaction(address, topic, ready):
    """A process that is killed."""
    SERVER.kafka = address
    made = producer(topic)
    made.begin_transaction()
    write(made, topic, "of a dead one")
    ready.set()
    while True:
        made.poll(1)


class Deaths(unittest.TestCase):
    def setUp(self):
        self.topic = topic_name()
        Confluent.create(self.topic)

    def test_a_killed_producers_transaction_is_aborted_by_its_successor(self):
        processes = multiprocessing.get_context("spawn")
        ready = processes.Event()
        process = processes.Process(target=stay_in_a_transaction, args=(SERVER.kafka, self.topic, ready), daemon=True)
        process.start()
        self.assertTrue(ready.wait(TIMEOUT_S))
        process.kill()
        process.join()
        plain = Confluent.producer()
        plain.produce(self.topic, "behind it", partition=0)
        self.assertEqual(plain.flush(TIMEOUT_S), 0)
        self.assertEqual(Confluent.values(self.topic), [])
        successor = producer(self.topic)
        self.assertEqual(Confluent.values(self.topic), ["behind it"])
        successor.begin_transaction()
        write(successor, self.topic, "next")
        successor.commit_transaction(TIMEOUT_S)
        self.assertEqual(Confluent.values(self.topic), ["behind it", "next"])
        self.assertEqual(Confluent.values(self.topic, "read_uncommitted"), ["of a dead one", "behind it", "next"])

    def test_a_transaction_that_nobody_ends_is_aborted_in_time(self):
        silent = producer(self.topic, **{"transaction.timeout.ms": 1_000})
        silent.begin_transaction()
        write(silent, self.topic, "too long")
        plain = Confluent.producer()
        plain.produce(self.topic, "behind it", partition=0)
        self.assertEqual(plain.flush(TIMEOUT_S), 0)
        until(lambda: Confluent.values(self.topic) == ["behind it"], "it is aborted")
        with self.assertRaises(confluent_kafka.KafkaException):
            silent.commit_transaction(TIMEOUT_S)

    def test_a_transaction_goes_on_after_the_server_was_killed(self):
        made = producer(self.topic)
        made.begin_transaction()
        write(made, self.topic, "before")
        SERVER.kill()
        SERVER.start()
        self.assertEqual(Confluent.values(self.topic), [])
        write(made, self.topic, "after")
        made.commit_transaction(TIMEOUT_S)
        self.assertEqual(Confluent.values(self.topic), ["before", "after"])

    def test_what_is_consumed_and_produced_in_transactions_is_there_once_through_kills(self):
        """Records are copied in transactions with their offsets, and the server is killed again and again."""
        count, kills, group, output = 1_000, 3, uuid.uuid4().hex, f"{self.topic}-out"
        Confluent.create(output)
        source = Confluent.producer()
        for number in range(count):
            source.produce(self.topic, str(number), partition=0)
        self.assertEqual(source.flush(TIMEOUT_S), 0)
        killed = 0

        def copy():
            """Until all is copied, or something fails that it does not get over by itself."""
            nonlocal killed
            # Where it begins anew because no broker is left, it goes on waiting for the group's coordinator as it was.
            made = producer(self.topic, **{"metadata.recovery.strategy": "none"})
            consumer = Confluent.consumer(**{"group.id": group, "isolation.level": "read_committed"})
            consumer.subscribe([self.topic])
            try:
                while True:
                    found = [one for one in consumer.consume(40, 1) if one.error() is None]
                    if not found:
                        if Confluent.committed(group, self.topic) == count:
                            return True
                        continue
                    made.begin_transaction()
                    write(made, output, *[one.value() for one in found])
                    if killed < kills and found[-1].offset() > (killed + 1) * count / (kills + 1):
                        killed += 1
                        SERVER.kill()
                        SERVER.start()
                    at = confluent_kafka.TopicPartition(self.topic, 0, found[-1].offset() + 1)
                    made.send_offsets_to_transaction([at], consumer.consumer_group_metadata(), TIMEOUT_S)
                    made.commit_transaction(TIMEOUT_S)
            except (AssertionError, confluent_kafka.KafkaException):
                # A successor takes over: it aborts what is open, and goes on from what is committed.
                return False
            finally:
                consumer.close()

        until(copy, "everything is copied")
        self.assertEqual(killed, kills)
        self.assertEqual(Confluent.values(output), [str(number) for number in range(count)])


if __name__ == "__main__":
    unittest.main()
