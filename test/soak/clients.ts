// The clients of a soak: good ones, slow ones, ones that leave, ones whose requests are wrong. Each asks once and says what it got.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Random } from '../bench/serve/random.ts'
import { post, postAndLeave, readUntil, type Shop } from '../e2e/customer.ts'

export interface Visit {
  /** Of the answer; undefined when the client left before its head. */
  readonly id?: string | undefined
  /** HTTP status, 'left', or what went wrong. */
  readonly outcome: string
  /** Such an outcome is no fault of the service. */
  readonly fine: boolean
}

export type Client = (shop: Shop, random: Random, signal: AbortSignal) => Promise<Visit>

const QUESTIONS = ['What is the capital of France?', 'What is 27 plus 15?', 'Hello!', 'What is the opposite of hot?']
const FACTS = Array.from({ length: 60 }, (_, i) => `Fact ${i}: the house number ${i * 7} stands by the river.`).join(
  ' ',
)

const pick = <T>(of: readonly T[], random: Random): T => of[Math.floor(random() * of.length)] as T
const user = (content: string) => [{ role: 'user', content }]
const seedOf = (random: Random): number => Math.floor(random() * 2 ** 31)

/** Too much asked at once is answered so, with a time to come back at. */
const isBusy = (response: Response): boolean =>
  [429, 503].includes(response.status) && response.headers.get('retry-after') !== null

const visit = (response: Response, outcome: string, fine: boolean): Visit => ({
  ...{ id: response.headers.get('x-request-id') ?? undefined, outcome, fine },
})

const whole = async (
  shop: Shop,
  body: object,
  signal: AbortSignal,
  holds: (text: string) => boolean,
): Promise<Visit> => {
  const response = await post(shop, body, { signal })
  const text = await response.text()
  if (isBusy(response)) return visit(response, String(response.status), true)
  if (response.status !== 200) return visit(response, `${response.status} ${text.slice(0, 200)}`, false)
  return holds(text) ? visit(response, '200', true) : visit(response, `200 but ${text.slice(-300)}`, false)
}

const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
const isDone = (text: string): boolean => text.trimEnd().endsWith('data: [DONE]')

const short: Client = (shop, random, signal) =>
  whole(shop, { messages: user(pick(QUESTIONS, random)), max_tokens: 20 }, signal, isJson)

const streamed: Client = (shop, random, signal) => {
  const messages = user(pick(QUESTIONS, random))
  const options = { stream: true, stream_options: { include_usage: true }, temperature: 1, seed: seedOf(random) }
  return whole(
    shop,
    { messages, max_tokens: 60, ...options },
    signal,
    (text) => isDone(text) && text.includes('"usage"'),
  )
}

/** Some of these texts come again, whole or in part: hits, evictions, and runs that want many pages. */
const long: Client = (shop, random, signal) => {
  const facts = FACTS.slice(0, 800 + Math.floor(random() * (FACTS.length - 800)))
  const messages = user(`Part ${Math.floor(random() * 6)}. ${facts} ${pick(QUESTIONS, random)}`)
  const max_tokens = 50 + Math.floor(random() * 400)
  return whole(shop, { messages, max_tokens, stream: true, temperature: 1.5, seed: seedOf(random) }, signal, isDone)
}

/** Begins small and wants page upon page: two of them are more than there is room for, so that one has to give back its own. */
const growing: Client = (shop, random, signal) => {
  const how = { max_tokens: 1000 + Math.floor(random() * 2000), ignore_eos: true, temperature: 1, seed: seedOf(random) }
  return whole(shop, { messages: user(pick(QUESTIONS, random)), stream: true, ...how }, signal, isDone)
}

const several: Client = (shop, random, signal) => {
  const messages = user(pick(QUESTIONS, random))
  const isAll = (text: string) => isJson(text) && (JSON.parse(text) as { choices: unknown[] }).choices.length === 3
  return whole(shop, { messages, n: 3, temperature: 1, seed: seedOf(random), max_tokens: 30 }, signal, isAll)
}

const structured: Client = (shop, random, signal) => {
  const properties = {
    city: { type: 'string', maxLength: 12 },
    size: { type: 'integer' },
    [`x${Math.floor(random() * 20)}`]: {},
  }
  const schema = { type: 'object', properties, required: ['city', 'size'], additionalProperties: false }
  const response_format = { type: 'json_schema', json_schema: { name: 'city', schema, strict: true } }
  const holds = (text: string): boolean => {
    if (!isJson(text)) return false
    const { choices } = JSON.parse(text) as { choices: { message: { content: string }; finish_reason: string }[] }
    // What ends by itself is valid; max_tokens may cut it.
    return choices[0]?.finish_reason === 'length' || isJson(choices[0]?.message.content ?? '')
  }
  const how = { response_format, temperature: 1, seed: seedOf(random), max_tokens: 80 }
  return whole(shop, { messages: user('What is the capital of Italy?'), ...how }, signal, holds)
}

const talk = (random: Random) => ({
  messages: user(`Repeat: ${'Anna Ben Clara '.repeat(20 + Math.floor(random() * 100))}`),
  ...{ stream: true, max_tokens: 600, temperature: 2, seed: seedOf(random) },
})

/** Leaves somewhere in the stream. */
const leaver: Client = async (shop, random, signal) => {
  const leave = new AbortController()
  const response = await post(shop, talk(random), { signal: AbortSignal.any([signal, leave.signal]) })
  if (response.status !== 200) {
    await response.text()
    return visit(response, String(response.status), isBusy(response))
  }
  let left = Math.floor(random() * 30)
  await readUntil(response, () => left-- <= 0)
  leave.abort()
  return visit(response, 'left', true)
}

/** Resets its connection after a moment: in the queue, in prefill, in the stream. */
const resetter: Client = async (shop, random) => {
  const { leave } = postAndLeave(shop, random() < 0.5 ? talk(random) : { messages: user(FACTS.slice(0, 1500)) })
  await sleep(random() * 800)
  leave()
  return { outcome: 'left', fine: true }
}

const slow: Client = async (shop, random, signal) => {
  const response = await post(shop, { ...talk(random), max_tokens: 100 }, { signal })
  const reader = response.body?.getReader()
  let text = ''
  const utf8 = new TextDecoder()
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    text += utf8.decode(part.value, { stream: true })
    await sleep(random() * 60)
  }
  if (response.status !== 200) return visit(response, String(response.status), isBusy(response))
  return isDone(text) ? visit(response, '200', true) : visit(response, `200 but ${text.slice(-300)}`, false)
}

/** The same request under one key, twice. */
const idempotent: Client = async (shop, random, signal) => {
  const headers = { 'idempotency-key': `soak ${seedOf(random)}` }
  const body = { messages: user(pick(QUESTIONS, random)), temperature: 1, max_tokens: 20 }
  const first = await post(shop, body, { headers, signal })
  const text = await first.text()
  if (first.status !== 200) return visit(first, String(first.status), isBusy(first))
  const again = await post(shop, body, { headers, signal })
  const same = (await again.text()) === text
  return same ? visit(first, '200', true) : visit(first, `replayed with ${again.status}, another answer`, false)
}

const refused =
  (status: number, body: (random: Random) => object, key?: string): Client =>
  async (shop, random, signal) => {
    const response = await post(key === undefined ? shop : { ...shop, key }, body(random), { signal })
    const text = await response.text()
    const fine = response.status === status || isBusy(response)
    return { outcome: fine ? String(response.status) : `${response.status} ${text.slice(0, 200)}`, fine }
  }

const badSchema = refused(400, () => {
  const schema = { type: 'object', not: {} }
  const response_format = { type: 'json_schema', json_schema: { name: 'x', schema, strict: true } }
  return { messages: user('x'), response_format }
})
const badValue = refused(422, () => ({ messages: user('x'), temperature: 99 }))
const wrongKey = refused(401, () => ({ messages: user('x') }), 'sk-wrong')
const wrongModel = refused(404, () => ({ messages: user('x'), model: 'nobody' }))
const tooLong = refused(413, (random) => ({ messages: user(`${random()} ${FACTS.repeat(12)}`) }))

/** With how many of a hundred visits each is made, about. */
export const CLIENTS: Readonly<Record<string, readonly [weight: number, client: Client]>> = {
  ...{ short: [18, short], streamed: [14, streamed], long: [14, long], several: [5, several], growing: [3, growing] },
  ...{ structured: [10, structured], leaver: [12, leaver], resetter: [10, resetter], slow: [3, slow] },
  ...{ idempotent: [3, idempotent], badSchema: [3, badSchema], badValue: [2, badValue], wrongKey: [1, wrongKey] },
  ...{ wrongModel: [1, wrongModel], tooLong: [1, tooLong] },
}

const TOTAL = Object.values(CLIENTS).reduce((sum, [weight]) => sum + weight, 0)

export const pickClient = (random: Random): readonly [name: string, client: Client] => {
  let left = random() * TOTAL
  for (const [name, [weight, client]] of Object.entries(CLIENTS)) {
    left -= weight
    if (left < 0) return [name, client]
  }
  return ['short', short]
}
