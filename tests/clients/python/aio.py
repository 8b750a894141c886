"""aiokafka."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import CommitFailedError, InvalidProducerEpoch, KafkaError, ProducerFenced

TIMEOUT_S = 30


async def code(call):
    """Kafka's number of what a call fails with; 0 for none."""
    try:
        await call
        return 0
    except ProducerFenced:  # What it makes of that answer has no number.
        return InvalidProducerEpoch.errno
    except KafkaError as error:
        return error.errno


class CommitFirst(ConsumerRebalanceListener):
    """Commits what was read before partitions are taken away."""

    def __init__(self, consumer):
        self.consumer = consumer

    async def on_partitions_revoked(self, revoked):
        await self.consumer.commit()

    async def on_partitions_assigned(self, assigned):
        pass


class Client:
    def __init__(self, bootstrap, topic):
        self.bootstrap, self.topic = bootstrap, topic

    async def consumer(self, **settings):
        """One of no group that reads partition 0."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, **settings)
        await consumer.start()
        return consumer

    async def group(self, group, left):
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, auto_offset_reset="earliest",
                                    enable_auto_commit=False, session_timeout_ms=6_000, heartbeat_interval_ms=500)
        consumer.subscribe([self.topic], listener=CommitFirst(consumer))
        await consumer.start()
        while not left.is_set():
            found = await consumer.getmany(timeout_ms=100)
            for records in found.values():
                for one in records:
                    print(one.partition, one.offset)
            if found:
                try:
                    await consumer.commit()
                except CommitFailedError:
                    pass  # The group rebalances, and the listener has committed.
        await consumer.commit()
        await consumer.stop()

    async def offsets(self, group):
        partition = TopicPartition(self.topic, 0)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False)
        await consumer.start()
        consumer.assign([partition])
        print(f"earliest: {(await consumer.beginning_offsets([partition]))[partition]}")
        print(f"latest: {(await consumer.end_offsets([partition]))[partition]}")
        print(f"at 1004: {(await consumer.offsets_for_times({partition: 1_004}))[partition].offset}")
        await consumer.commit({partition: (7, "note")})
        await consumer.stop()
        admin = await self.admin_client()
        found = (await admin.list_consumer_group_offsets(group))[partition]
        print(f"committed: {found.offset} {found.metadata}")
        await admin.close()

    async def admin_client(self):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        return admin

    async def admin(self):
        topic, admin = self.topic, await self.admin_client()

        async def create(step, name, replicas=1, **configs):
            answer = await admin.create_topics([NewTopic(name, 3, replicas, topic_configs=configs)])
            print(f"{step}: {answer.topic_errors[0][1]}")

        async def partitions():
            print(f"partitions: {len((await admin.describe_topics([topic]))[0]['partitions'])}")

        await create("create", topic, **{"retention.ms": "60000"})
        await create("create again", topic)
        await create("create a bad name", "a b")
        await create("create with 3 replicas", f"{topic}-3", 3)
        await create("create with an unknown config", f"{topic}-c", **{"no.such": "1"})
        await partitions()
        await admin.create_partitions({topic: NewPartitions(5)})
        await partitions()
        print(f"fewer partitions: {await code(admin.create_partitions({topic: NewPartitions(2)}))}")
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "70000"})])
        [described] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        print(f"retention.ms: {next(one[1] for one in described.resources[0][4] if one[0] == 'retention.ms')}")
        for step in ("delete", "delete again"):
            print(f"{step}: {(await admin.delete_topics([topic])).topic_error_codes[0][1]}")
        await admin.close()

    async def refused(self):
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        print(f"too large: {await code(producer.send_and_wait(self.topic, bytes(5_000)))}")
        await producer.stop()
        consumer = await self.consumer(auto_offset_reset="none")
        partition = TopicPartition(self.topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 1_000)
        print(f"out of range: {await code(asyncio.wait_for(consumer.getone(), TIMEOUT_S))}")
        await consumer.stop()

    async def transactions(self, group):
        output = f"{self.topic}-out"

        async def begin():
            made = AIOKafkaProducer(bootstrap_servers=self.bootstrap, transactional_id=output)
            await made.start()
            return made

        async def send(made, *values):
            for value in values:
                await made.send_and_wait(output, value, partition=0)

        async def read(topic, enough):
            """A topic's committed records."""
            consumer, found = await self.consumer(isolation_level="read_committed"), []
            partition = TopicPartition(topic, 0)
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            while not enough(found):
                found.append((await asyncio.wait_for(consumer.getone(), TIMEOUT_S)).value)
            await consumer.stop()
            return found

        first = await begin()
        async with first.transaction():
            await send(first, b"kept")
        await first.begin_transaction()
        await send(first, b"dropped")
        await first.abort_transaction()
        async with first.transaction():
            await send(first, *await read(self.topic, lambda found: len(found) == 10))
            await first.send_offsets_to_transaction({TopicPartition(self.topic, 0): 10}, group)
        await first.begin_transaction()
        await send(first, b"fenced")
        successor = await begin()
        print(f"fenced: {await code(first.commit_transaction())}")
        async with successor.transaction():
            await send(successor, b"successor")
        await successor.stop()
        await first.stop()
        found = await read(output, lambda found: found[-1:] == [b"successor"])
        print(f"read: {' '.join(one.decode() for one in found)}")

    async def start(self):
        """The examples of its README."""
        async def send_one():
            producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
            # Get cluster layout and initial topic/partition leadership information
            await producer.start()
            try:
                # Produce message
                await producer.send_and_wait(self.topic, b"Super message")
            finally:
                # Wait for all pending messages to be delivered or expire.
                await producer.stop()

        async def consume():
            consumer = AIOKafkaConsumer(
                self.topic, f"{self.topic}-other",
                bootstrap_servers=self.bootstrap,
                group_id="my-group",
                auto_offset_reset="earliest")
            # Get cluster layout and join group `my-group`
            await consumer.start()
            try:
                # Consume messages
                async for msg in consumer:
                    print("consumed: ", msg.topic, msg.partition, msg.offset,
                          msg.key, msg.value, msg.timestamp)
                    return msg.value
            finally:
                # Will leave consumer group; perform autocommit if enabled.
                await consumer.stop()

        await send_one()
        print((await consume()).decode())
