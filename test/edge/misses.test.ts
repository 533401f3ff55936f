// A miss of the prefix cache explained where the obvious answer would be wrong: the earlier prompt failed, was still being computed, is
// the same further than prompts are followed, or cannot be compared at all.
import { beforeEach, expect, test, vi } from 'vitest'
import { templateName } from '../../schema/chat/template_source.ts'
import type { Receipt } from '../../schema/wire.ts'
import {
  type Account,
  admin,
  asCustomer,
  chat,
  flush,
  idOf,
  MODEL,
  openAccount,
  receiptOf,
  registerNode,
  removeNodes,
  send,
  type TestNode,
} from './world.ts'

let node: TestNode
let account: Account
beforeEach(async () => {
  await removeNodes()
  node = await registerNode('good')
  account = await openAccount(1e10)
})

const ask = async (content: string): Promise<string> =>
  idOf(await chat(account.key, { messages: [{ role: 'user', content }] }))
const book = async (changes: Readonly<Record<string, Partial<Receipt>>>): Promise<void> => {
  const receipts = Object.entries(changes).map(([id, change]) => receiptOf(node, account, id, change))
  await send(node, receipts)
  await flush(account)
}
const explain = async (id: string): Promise<Record<string, unknown>> =>
  (await asCustomer(account, `/v1/usage/${id}/prefix`)).json()

const STORY = 'Once there was a king who had three daughters. '.repeat(12)

test('a try that got an error explains no miss: the prompt is compared with what was computed', async () => {
  const first = await ask(`${STORY}Which of them was the eldest?`)
  await removeNodes()
  await registerNode('draining')
  const failed = await chat(account.key, { messages: [{ role: 'user', content: `${STORY}How did the king die?` }] })
  expect(failed.status).toBe(503)
  await removeNodes()
  node = await registerNode('good')
  const again = await ask(`${STORY}How did the king die?`)
  expect(await explain(again)).toMatchObject({ compared_with: { request_id: first }, left_at: { role: 'user' } })
})

test('of two that ran at once the node did not lose what it had not computed yet', async () => {
  const [first, second] = [await ask(STORY), await ask(STORY)]
  await book({
    [first]: { missTokens: 200, openedAt: 1000, firstTokenAt: 1900, closedAt: 2000 },
    [second]: { missTokens: 200, openedAt: 1100, firstTokenAt: 1950, closedAt: 2100 },
  })
  expect((await explain(second)).note).toContain('not computed by then')
})

test('a prompt is not said to be the same further than it is followed', async () => {
  const long = 'x'.repeat(270_000)
  await ask(`${long} and then the one end of it, which is long enough to differ`)
  const {
    note,
    left_at,
    shared_characters: shared,
  } = await explain(await ask(`${long}, or another end altogether of it`))
  expect(left_at).toBeNull()
  expect(note).toBe(`The first ${shared} characters are those of the earlier prompt; what follows is not compared.`)
})

test('a prompt of token ids is said not to be compared', async () => {
  const body = { model: MODEL, prompt: Array.from({ length: 100 }, (_, i) => i), max_tokens: 5 }
  const complete = () => asCustomer(account, '/v1/completions', { method: 'POST', body: JSON.stringify(body) })
  await complete()
  expect(await explain(idOf(await complete()))).toMatchObject({
    compared_with: null,
    note: expect.stringContaining('token ids'),
  })
})

test.each([
  ['a text', STORY],
  ['token ids', Array.from({ length: 100 }, (_, i) => i)],
])('%s that is scored misses because it is, whatever the node holds', async (_, prompt) => {
  const complete = async (extra: object): Promise<string> => {
    const body = JSON.stringify({ model: MODEL, prompt, max_tokens: 5, ...extra })
    return idOf(await asCustomer(account, '/v1/completions', { method: 'POST', body }))
  }
  const [first, scored] = [await complete({ echo: true }), await complete({ echo: true, logprobs: 0 })]
  await book({
    [first]: { missTokens: 200, openedAt: 1000, firstTokenAt: 1200, closedAt: 1300 },
    [scored]: { missTokens: 200 },
  })
  expect((await explain(scored)).note).toMatch(/computed whole, and nothing of it is taken from the cache\.$/)
  expect((await explain(await complete({ logprobs: 0 }))).note).not.toContain('computed whole')
})

test('where the turns of a template cannot be told apart, the note says that left_at counts from the beginning', async () => {
  const source = {
    template: '{% for m in messages %}<u>{{ m.content }}{% endfor %}',
    bos: '',
    eos: '',
    specials: ['<u>'],
  }
  await removeNodes()
  await registerNode('good', 0, { model: 'templated', chatFormat: templateName(source), template: source })
  await admin('PUT', '/prices', { model: 'templated', hitNano: 1, missNano: 1, outputNano: 1 })
  const tell = async (last: string): Promise<string> => {
    const messages = [STORY, last].map((content) => ({ role: 'user', content }))
    // An object asks for new prices once a second.
    return vi.waitFor(async () => {
      const answer = await chat(account.key, { model: 'templated', messages })
      expect(answer.status).toBe(200)
      return idOf(answer)
    }, 30_000)
  }
  await tell('Which of them was the eldest daughter?')
  const { left_at: place, note } = await explain(await tell('How did the old king die in the end?'))
  expect(place).toMatchObject({ message: 0, character: Math.floor((STORY.length + 6) / 16) * 16 })
  expect(note).toContain('counted from the beginning of the prompt')
  const [, other] = [await ask(`${STORY}Who was the eldest daughter?`), await ask(`${STORY}How did the king die?`)]
  expect((await explain(other)).note).not.toContain('counted from')
})
