import { createRequire } from 'node:module'
import zlib from 'node:zlib'
import kafkajs from 'kafkajs'

// Beyond gzip it leaves compression to other packages.
const require = createRequire(import.meta.url)
const lz4 = require('lz4js')
const { CompressionTypes, CompressionCodecs, Kafka, logLevel } = kafkajs
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(lz4.decompress(buffer))
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => zlib.zstdCompressSync(encoder.buffer),
  decompress: async buffer => zlib.zstdDecompressSync(buffer)
})
const CODECS = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }

// Kafka's number of what a call fails with; 0 for none.
async function code (call) {
  try {
    await call()
    return 0
  } catch (error) {
    for (let one = error; one; one = one.errors?.[0] ?? one.originalError ?? one.cause) {
      if (typeof one.code === 'number') return one.code
    }
    throw error
  }
}

export class Client {
  constructor (bootstrap, topic) {
    this.bootstrap = bootstrap
    this.topic = topic
    this.kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.NOTHING })
  }

  async produce (codec, records) {
    const producer = this.kafka.producer({ idempotent: true })
    await producer.connect()
    const messages = records.map(({ key, value, headers }) => {
      const named = {}
      for (const [name, value] of headers) named[name] = name in named ? [named[name], value].flat() : value
      return { partition: 0, key, value, headers: named }
    })
    await producer.send({ topic: this.topic, acks: -1, compression: CompressionTypes[CODECS[codec]], messages })
    await producer.disconnect()
  }

  async consume (count, print) {
    const consumer = this.kafka.consumer({ groupId: `g-${this.topic}-${process.pid}` })
    await consumer.connect()
    await consumer.subscribe({ topic: this.topic, fromBeginning: true })
    await new Promise(resolve => consumer.run({
      eachMessage: async ({ message: { key, value, headers } }) => {
        print({ key, value, headers: Object.entries(headers).flatMap(([name, found]) => [found].flat().map(one => [name, one])) })
        if (--count === 0) resolve()
      }
    }))
    await consumer.disconnect()
  }

  async group (groupId, show, left) {
    const consumer = this.kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 500 })
    await consumer.connect()
    await consumer.subscribe({ topic: this.topic, fromBeginning: true })
    await consumer.run({ eachMessage: async ({ partition, message }) => show(partition, message.offset) })
    await left
    await consumer.disconnect()
  }

  async offsets (groupId) {
    const admin = this.kafka.admin()
    await admin.connect()
    const [{ low, high }] = await admin.fetchTopicOffsets(this.topic)
    const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(this.topic, 1004)
    console.log(`earliest: ${low}\nlatest: ${high}\nat 1004: ${offset}`)
    await admin.setOffsets({ groupId, topic: this.topic, partitions: [{ partition: 0, offset: '7' }] })
    const [{ partitions: [found] }] = await admin.fetchOffsets({ groupId, topics: [this.topic] })
    console.log(`committed: ${found.offset} ${found.metadata ?? ''}`)
    await admin.disconnect()
  }

  async admin () {
    const { topic } = this
    const admin = this.kafka.admin({ retry: { retries: 0 } })
    await admin.connect()
    const create = async (step, topic, replicationFactor = 1, configEntries = []) => {
      const made = { topic, numPartitions: 3, replicationFactor, configEntries }
      // It answers false where the topic is there, and throws what else is wrong.
      const created = await code(async () => {
        if (!await admin.createTopics({ topics: [made] })) throw Object.assign(new Error('it is there'), { code: 36 })
      })
      console.log(`${step}: ${created}`)
    }
    const partitions = async () => {
      const { topics: [found] } = await admin.fetchTopicMetadata({ topics: [topic] })
      console.log(`partitions: ${found.partitions.length}`)
    }
    const grow = count => admin.createPartitions({ topicPartitions: [{ topic, count }] })
    await create('create', topic, 1, [{ name: 'retention.ms', value: '60000' }])
    await create('create again', topic)
    await create('create a bad name', 'a b')
    await create('create with 3 replicas', topic + '-3', 3)
    await create('create with an unknown config', topic + '-c', 1, [{ name: 'no.such', value: '1' }])
    await partitions()
    await grow(5)
    await partitions()
    console.log(`fewer partitions: ${await code(() => grow(2))}`)
    const configEntries = [{ name: 'retention.ms', value: '70000' }]
    await admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name: topic, configEntries }] })
    const { resources: [described] } = await admin.describeConfigs({
      resources: [{ type: 2, name: topic, configNames: ['retention.ms'] }], includeSynonyms: false
    })
    console.log(`retention.ms: ${described.configEntries[0].configValue}`)
    console.log(`delete: ${await code(() => admin.deleteTopics({ topics: [topic] }))}`)
    console.log(`delete again: ${await code(() => admin.deleteTopics({ topics: [topic] }))}`)
    await admin.disconnect()
  }

  async refused () {
    const producer = this.kafka.producer({ retry: { retries: 0 } })
    await producer.connect()
    const messages = [{ value: Buffer.alloc(5000) }]
    console.log(`too large: ${await code(() => producer.send({ topic: this.topic, messages }))}`)
    await producer.disconnect()
  }

  async transactions (groupId) {
    const output = `${this.topic}-out`
    const begin = async () => {
      const producer = this.kafka.producer({ transactionalId: output, maxInFlightRequests: 1, idempotent: true, retry: { retries: 2 } })
      await producer.connect()
      return producer
    }
    const write = async (transaction, ...values) => {
      await transaction.send({ topic: output, acks: -1, messages: values.map(value => ({ value })) })
      return transaction
    }
    const producer = await begin()
    await (await write(await producer.transaction(), 'kept')).commit()
    await (await write(await producer.transaction(), 'dropped')).abort()
    const input = await this.values(this.topic, found => found.length === 10)
    const copying = await write(await producer.transaction(), ...input)
    const topics = [{ topic: this.topic, partitions: [{ partition: 0, offset: '10' }] }]
    await copying.sendOffsets({ consumerGroupId: groupId, topics })
    await copying.commit()

    const fenced = await write(await producer.transaction(), 'fenced')
    const successor = await begin()
    const next = await successor.transaction()
    console.log(`fenced: ${await code(() => fenced.commit())}`)
    await (await write(next, 'successor')).commit()
    await successor.disconnect()
    const found = await this.values(output, found => found.at(-1) === 'successor')
    console.log(`read: ${found.join(' ')}`)
  }

  // The committed records of a topic, until there are enough.
  async values (topic, isEnough) {
    const consumer = this.kafka.consumer({ groupId: `g-${topic}-${process.pid}`, readUncommitted: false })
    const found = []
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    await new Promise(resolve => consumer.run({
      eachMessage: async ({ message }) => {
        found.push(message.value.toString())
        if (isEnough(found)) resolve()
      }
    }))
    await consumer.disconnect()
    return found
  }

  // Getting started, of its documentation.
  async start () {
    const kafka = new Kafka({ clientId: 'my-app', brokers: [this.bootstrap] })
    const producer = kafka.producer()
    await producer.connect()
    await producer.send({ topic: this.topic, messages: [{ value: 'Hello KafkaJS user!' }] })
    await producer.disconnect()

    const consumer = kafka.consumer({ groupId: 'test-group', logLevel: logLevel.NOTHING })
    await consumer.connect()
    await consumer.subscribe({ topic: this.topic, fromBeginning: true })
    const value = await new Promise(resolve => consumer.run({
      eachMessage: async ({ message }) => resolve(message.value.toString())
    }))
    await consumer.disconnect()
    console.log(value)
  }
}
