// The `openai` package against a running server: node openai.mjs URL MODEL. Prints one line of JSON.
import OpenAI from 'openai'

const [, , baseURL, model] = process.argv
const client = new OpenAI({ baseURL, apiKey: 'unused', maxRetries: 0 })
const messages = [{ role: 'user', content: 'Hello!' }]
const found = {}

found.models = (await client.models.list()).data.map((each) => each.id)
found.model = (await client.models.retrieve(model)).id

const answer = await client.chat.completions.create({ model, messages, max_tokens: 5, ignore_eos: true })
found.chat = { finish: answer.choices[0].finish_reason, tokens: answer.usage.completion_tokens }

let text = ''
let usage = null
const stream = await client.chat.completions.create({
  model, messages, max_tokens: 6, ignore_eos: true, stream: true, stream_options: { include_usage: true },
})
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? ''
  usage = chunk.usage ?? usage
}
found.stream = { length: text.length, tokens: usage.completion_tokens }

const tools = [{
  type: 'function',
  function: {
    name: 'ring',
    description: 'Ring the bell',
    parameters: { type: 'object', properties: { times: { enum: [1, 2] } }, required: ['times'] },
  },
}]
const called = await client.chat.completions.create({ model, messages, tools, tool_choice: 'required' })
const call = called.choices[0].message.tool_calls[0]
found.call = { name: call.function.name, arguments: JSON.parse(call.function.arguments) }

const shaped = await client.chat.completions.create({
  model,
  messages,
  response_format: {
    type: 'json_schema',
    json_schema: { name: 'ok', schema: { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'] } },
  },
})
found.shaped = JSON.parse(shaped.choices[0].message.content)

const completion = await client.completions.create({ model, prompt: 'Hello', max_tokens: 3, echo: true })
found.echo = completion.choices[0].text.startsWith('Hello')

found.errors = []
for (const ask of [
  () => client.chat.completions.create({ model: 'no-such-model', messages }),
  () => client.embeddings.create({ model, input: 'Hello' }),
  () => client.responses.create({ model, input: 'Hello' }),
  () => client.chat.completions.create({ model, messages: [] }),
]) {
  try {
    await ask()
    found.errors.push(null)
  } catch (error) {
    found.errors.push({ name: error.constructor.name, status: error.status, code: error.code ?? null })
  }
}

console.log(JSON.stringify(found))
