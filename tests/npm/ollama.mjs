// The `ollama` package against a running server: node ollama.mjs URL MODEL. Prints one line of JSON.
import { Ollama } from 'ollama'

const [, , host, model] = process.argv
const client = new Ollama({ host })
const five = { num_predict: 5, ignore_eos: true, temperature: 0 }
const messages = [{ role: 'user', content: 'Hello!' }]
const found = {}

found.names = (await client.list()).models.map((each) => each.name)
found.capabilities = (await client.show({ model })).capabilities

const answer = await client.chat({ model, messages, options: five })
found.chat = { role: answer.message.role, tokens: answer.eval_count, done: answer.done, reason: answer.done_reason }

let streamed = ''
let last
for await (const part of await client.chat({ model, messages, options: five, stream: true })) {
  streamed += part.message.content
  last = part
}
found.stream = { length: streamed.length, tokens: last.eval_count, done: last.done }

let generated = ''
for await (const part of await client.generate({ model, prompt: 'Hello', options: five, stream: true })) {
  generated += part.response
}
found.generated = generated.length

const format = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'] }
found.shaped = JSON.parse((await client.chat({ model, messages, format })).message.content)

found.running = (await client.ps()).models.map((each) => each.model)

const statuses = []
for await (const part of await client.create({ model: 'npm-sailor', from: model, system: 'You sail.', stream: true })) {
  statuses.push(part.status)
}
found.created = statuses.at(-1)
found.copied = (await client.copy({ source: 'npm-sailor', destination: 'npm-seaman' })).status
found.deleted = [
  (await client.delete({ model: 'npm-sailor' })).status,
  (await client.delete({ model: 'npm-seaman' })).status,
]

const pulled = []
for await (const part of await client.pull({ model, stream: true })) pulled.push(part.status)
found.pulled = pulled.at(-1)

found.errors = []
for (const ask of [
  () => client.chat({ model: 'no-such-model', messages }),
  () => client.chat({ model: 'no-such-model', messages, stream: true }),
  () => client.embed({ model, input: 'Hello' }),
  () => client.show({ model: 'no-such-model' }),
]) {
  try {
    await ask()
    found.errors.push(null)
  } catch (error) {
    found.errors.push({ status: error.status_code, message: error.message })
  }
}

const long = await client.generate({ model, prompt: 'Hello', stream: true, options: { num_predict: 2000, ignore_eos: true } })
let name
try {
  for await (const part of long) {
    if (part.response) long.abort()
  }
} catch (error) {
  name = error.name
}
found.aborted = name

console.log(JSON.stringify(found))
