import {
  Admin, Consumer, ListOffsetTimestamps, MessagesStreamFallbackModes, MessagesStreamModes, Producer, stringDeserializers,
  stringSerializers
} from '@platformatic/kafka'

// Kafka's number of what a call fails with; 0 for none.
async function code (call) {
  try {
    await call()
    return 0
  } catch (error) {
    const found = [error]
    for (const one of found) {
      if (typeof one.apiCode === 'number') return one.apiCode
      found.push(...(one.errors ?? []), ...(one.cause ? [one.cause] : []))
    }
    throw error
  }
}

export class Client {
  constructor (bootstrap, topic) {
    this.settings = { clientId: 'clients', bootstrapBrokers: [bootstrap] }
    this.topic = topic
  }

  consumer (groupId, options = {}) {
    return new Consumer({ ...this.settings, groupId, ...options })
  }

  async produce (compression, records) {
    const producer = new Producer({ ...this.settings, compression, idempotent: true, acks: -1 })
    await producer.send({
      messages: records.map(({ key, value, headers }) => ({
        topic: this.topic, partition: 0, key, value, headers: new Map(headers.map(([name, value]) => [Buffer.from(name), value]))
      }))
    })
    await producer.close()
  }

  async consume (count, print) {
    const consumer = this.consumer(`g-${this.topic}-${process.pid}`)
    const stream = await consumer.consume({ topics: [this.topic], mode: MessagesStreamModes.EARLIEST, autocommit: false })
    for await (const { key, value, headerEntries } of stream) {
      print({ key, value, headers: headerEntries })
      if (--count === 0) break
    }
    await consumer.close(true)
  }

  async group (groupId, show, left) {
    const consumer = this.consumer(groupId, { sessionTimeout: 6000, heartbeatInterval: 500, rebalanceTimeout: 10000 })
    const stream = await consumer.consume({
      topics: [this.topic],
      mode: MessagesStreamModes.COMMITTED,
      fallbackMode: MessagesStreamFallbackModes.EARLIEST,
      autocommit: 200
    })
    stream.on('data', message => show(message.partition, message.offset))
    await left
    await stream.close()
    await consumer.close()
  }

  async offsets (group) {
    const { topic } = this
    const consumer = this.consumer(group)
    const admin = new Admin(this.settings)
    for (const [step, timestamp] of [['earliest', ListOffsetTimestamps.EARLIEST], ['latest', ListOffsetTimestamps.LATEST], ['at 1004', 1004n]]) {
      const [{ partitions: [found] }] = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp }] }] })
      console.log(`${step}: ${found.offset}`)
    }
    await admin.alterConsumerGroupOffsets({
      groupId: group, topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset: 7n }] }]
    })
    const [{ topics: [{ partitions: [found] }] }] = await admin.listConsumerGroupOffsets({ groups: [group] })
    console.log(`committed: ${found.committedOffset} ${found.metadata ?? ''}`)
    await admin.close()
    await consumer.close()
  }

  async admin () {
    const { topic } = this
    const admin = new Admin({ ...this.settings, retries: 0 })
    const create = async (step, topic, replicas = 1, configs = []) => {
      const created = await code(() => admin.createTopics({ topics: [topic], partitions: 3, replicas, configs }))
      console.log(`${step}: ${created}`)
    }
    const partitions = async () => {
      const { topics } = await admin.metadata({ topics: [topic], forceUpdate: true })
      console.log(`partitions: ${topics.get(topic).partitionsCount}`)
    }
    const grow = count => admin.createPartitions({ topics: [{ name: topic, count, assignments: null }] })
    await create('create', topic, 1, [{ name: 'retention.ms', value: '60000' }])
    await create('create again', topic)
    await create('create a bad name', 'a b')
    await create('create with 3 replicas', topic + '-3', 3)
    await create('create with an unknown config', topic + '-c', 1, [{ name: 'no.such', value: '1' }])
    await partitions()
    await grow(5)
    await partitions()
    console.log(`fewer partitions: ${await code(() => grow(2))}`)
    const configs = [{ name: 'retention.ms', configOperation: 0, value: '70000' }]
    await admin.incrementalAlterConfigs({ resources: [{ resourceType: 2, resourceName: topic, configs }] })
    const [described] = await admin.describeConfigs({
      resources: [{ resourceType: 2, resourceName: topic, configurationKeys: ['retention.ms'] }]
    })
    console.log(`retention.ms: ${described.configs[0].value}`)
    console.log(`delete: ${await code(() => admin.deleteTopics({ topics: [topic] }))}`)
    console.log(`delete again: ${await code(() => admin.deleteTopics({ topics: [topic] }))}`)
    await admin.close()
  }

  async refused () {
    const producer = new Producer({ ...this.settings, retries: 0 })
    const messages = [{ topic: this.topic, value: Buffer.alloc(5000) }]
    console.log(`too large: ${await code(() => producer.send({ messages }))}`)
    await producer.close()
    const consumer = this.consumer(`g-${this.topic}`)
    const offsets = [{ topic: this.topic, partition: 0, offset: 1000n }]
    const stream = await consumer.consume({
      topics: [this.topic], mode: MessagesStreamModes.MANUAL, fallbackMode: MessagesStreamFallbackModes.FAIL, offsets
    })
    const refused = await code(() => new Promise((resolve, reject) => stream.on('error', reject).on('data', resolve)))
    console.log(`out of range: ${refused}`)
    await consumer.close(true)
  }

  async transactions (groupId) {
    const output = `${this.topic}-out`
    // Without these it believes to be producer 0, and whoever has the id already fences it (KIP-360).
    const nobody = { producerId: -1n, producerEpoch: -1 }
    const begin = () => new Producer({ ...this.settings, ...nobody, transactionalId: output, idempotent: true, retries: 2 })
    const write = async (transaction, ...values) => {
      await transaction.send({ messages: values.map(value => ({ topic: output, value: Buffer.from(value) })) })
      return transaction
    }
    const producer = begin()
    await (await write(await producer.beginTransaction(), 'kept')).commit()
    await (await write(await producer.beginTransaction(), 'dropped')).abort()
    const consumer = this.consumer(groupId)
    const copying = await producer.beginTransaction()
    await copying.addConsumer(consumer)
    const input = await this.read(consumer, this.topic, found => found.length === 10)
    await write(copying, ...input.map(({ value }) => value))
    await copying.addOffset(input.at(-1))
    await copying.commit()
    await consumer.close(true)

    const fenced = await write(await producer.beginTransaction(), 'fenced')
    const successor = begin()
    const next = await successor.beginTransaction()
    console.log(`fenced: ${await code(() => fenced.commit())}`)
    await (await write(next, 'successor')).commit()
    await successor.close()
    const reader = this.consumer(`g-${output}-${process.pid}`)
    const found = await this.read(reader, output, found => String(found.at(-1)?.value) === 'successor')
    console.log(`read: ${found.map(({ value }) => value).join(' ')}`)
    await reader.close(true)
  }

  // The committed records of a topic, until there are enough.
  async read (consumer, topic, isEnough) {
    const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST, autocommit: false, isolationLevel: 1 })
    const found = []
    for await (const message of stream) {
      found.push(message)
      if (isEnough(found)) break
    }
    return found
  }

  // Getting started, of its README.
  async start () {
    const producer = new Producer({ ...this.settings, serializers: stringSerializers })
    await producer.send({
      messages: [{
        topic: this.topic,
        key: 'user-123',
        value: JSON.stringify({ name: 'John', action: 'login' }),
        headers: { source: 'web-app' }
      }]
    })
    await producer.close()

    const consumer = new Consumer({ ...this.settings, groupId: 'my-consumer-group', deserializers: stringDeserializers })
    const stream = await consumer.consume({
      autocommit: true, topics: [this.topic], sessionTimeout: 10000, heartbeatInterval: 500, mode: MessagesStreamModes.EARLIEST
    })
    for await (const message of stream) {
      console.log(`${message.key} -> ${message.value}`)
      break
    }
    await consumer.close(true)
  }
}
