// Kafka clients of Node, driven by the tests: see programs.py for what each verb does and prints.
//
//   node main.js LIBRARY VERB BOOTSTRAP TOPIC [ARGUMENT]

import { createInterface } from 'node:readline'

const [library, verb, bootstrap, topic, argument] = process.argv.slice(2)
const { Client } = await import(`./${library}.js`)
const client = new Client(bootstrap, topic)

// A record is a line: key, value, then name and value of each header, each base64 behind a `=`, or `-` for null.
const word = bytes => (bytes == null ? '-' : '=' + Buffer.from(bytes).toString('base64'))
const bytes = word => (word === '-' ? null : Buffer.from(word.slice(1), 'base64'))

async function read () {
  const records = []
  for await (const line of createInterface({ input: process.stdin })) {
    const [key, value, ...rest] = line.split(' ').map(bytes)
    const headers = []
    for (let at = 0; at < rest.length; at += 2) headers.push([rest[at].toString(), rest[at + 1]])
    records.push({ key, value, headers })
  }
  return records
}

const print = ({ key, value, headers }) => {
  const words = headers.flatMap(([name, value]) => [word(Buffer.from(name)), word(value)])
  console.log([word(key), word(value), ...words].join(' '))
}

// Resolves when the input ends.
const left = () => new Promise(resolve => process.stdin.on('end', resolve).resume())

const verbs = {
  produce: async () => client.produce(argument, await read()),
  consume: () => client.consume(Number(argument), print),
  group: () => client.group(argument, (partition, offset) => console.log(partition, String(offset)), left()),
  offsets: () => client.offsets(argument),
  admin: () => client.admin(),
  refused: () => client.refused(),
  transactions: () => client.transactions(argument),
  start: () => client.start()
}
await verbs[verb]()
// What was printed goes out first.
process.stdout.write('', () => process.exit())
