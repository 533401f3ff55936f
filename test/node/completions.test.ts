// What a node does for text completions, for checkpoints with a chat template, and for streams that have to wait.
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { RunningNode } from '../../gpu-node/node.ts'
import { loadTokenizer } from '../../gpu-node/tokenizer.ts'
import { templateName, templateSchema } from '../../schema/chat/template_source.ts'
import type { Run } from '../../schema/wire.ts'
import {
  chunksOf,
  post,
  runRequest,
  startEdge,
  startTestNode,
  type TestEdge,
  tempDir,
  testSettings,
  until,
} from './fixture.ts'
import { type Script, scriptedEngine } from './scripted_engine.ts'

let edge: TestEdge
let dir: ReturnType<typeof tempDir>
let node: RunningNode | undefined
let script: Script
const engine = scriptedEngine(() => script)

beforeEach(async () => {
  edge = await startEdge()
  dir = tempDir()
  engine.submitted.length = 0
})
afterEach(async () => {
  await node?.drain()
  await edge.close()
  dir.remove()
})

const MODEL = testSettings('http://127.0.0.1', '.').SPARROW_MODEL_DIR

/** The embedded checkpoint's tokenizer, changed. */
const checkpoint = (files: Readonly<Record<string, string>>, added: readonly string[] = []): string => {
  const modelDir = join(dir.path, 'model')
  cpSync(MODEL, modelDir, { recursive: true, filter: (path) => !path.includes('train') })
  const json = JSON.parse(readFileSync(join(modelDir, 'tokenizer.json'), 'utf8')) as { added_tokens: object[] }
  for (const [i, content] of added.entries())
    json.added_tokens.push({ id: 2048 + i, content, special: true, lstrip: false, rstrip: false, normalized: false })
  writeFileSync(join(modelDir, 'tokenizer.json'), JSON.stringify(json))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(modelDir, name), text)
  return modelDir
}

const start = async (settings: Readonly<Record<string, string>> = {}): Promise<RunningNode> => {
  node = await startTestNode(testSettings(edge.url, join(dir.path, 'state'), settings), engine, edge)
  return node
}

const raw: Partial<Run> = { dialect: 'completions', raw: true, prompt: 'One two' }
const answerOf = async (response: Response) => ({ status: response.status, ...((await response.json()) as object) })

test.each(['ss', '<｜Assistant｜>'])(
  'a stop string in the text of a special token ends the run, and the bill: %s',
  async (stop) => {
    const { encode } = await loadTokenizer(MODEL)
    const special = (await encode('<｜Assistant｜>')).ids
    script = { ids: [70, ...special, ...new Array(4000).fill(71)], idsPerStep: 8, stepMs: 10 }
    const request = runRequest({ ...raw, stream: false, stop: [stop], maxTokens: 4000 })
    const cancels = engine.cancels
    const before = (await encode('<｜Assistant｜>')).ids.length + 1
    expect(await answerOf(await post(await start(), request))).toMatchObject({
      choices: [{ text: expect.not.stringContaining(stop), finish_reason: 'stop' }],
      usage: { completion_tokens: before },
    })
    await until('the receipt', () => edge.receipts.length === 1)
    expect(edge.receipts[0]).toMatchObject({ outputTokens: before, finish: 'stop' })
    expect(engine.cancels).toBe(cancels + 1)
  },
)

test('a raw answer is text as it comes, up to the token that ends it', async () => {
  const { encode } = await loadTokenizer(MODEL)
  const { ids } = await encode('\n\n<think>a</think> <｜DSML｜function_calls> b')
  script = { ids: [...ids, 1] }
  const request = runRequest({ ...raw, stream: false, echoText: 'One two', shownModel: 'deepseek-chat' })
  expect(await answerOf(await post(await start(), request))).toMatchObject({
    status: 200,
    object: 'text_completion',
    model: 'deepseek-chat',
    system_fingerprint: expect.stringMatching(/^fp_[0-9a-f]{10}$/),
    choices: [{ text: 'One two\n\n<think>a</think> <｜DSML｜function_calls> b', finish_reason: 'stop' }],
    usage: { prompt_tokens: (await encode('One two')).ids.length, completion_tokens: ids.length + 1 },
  })
})

test('a prompt of token ids is taken as it is; one that is no token is refused', async () => {
  script = { ids: [70, 1] }
  const running = await start()
  const request = runRequest({ ...raw, prompt: '', promptTokens: [5, 6, 7], stream: false })
  expect(await answerOf(await post(running, request))).toMatchObject({ status: 200, usage: { prompt_tokens: 3 } })
  expect([...(engine.submitted[0]?.tokens ?? [])]).toEqual([5, 6, 7])
  const foreign = runRequest({ ...raw, prompt: '', promptTokens: [5, 2048], stream: false })
  expect(await answerOf(await post(running, foreign))).toMatchObject({ status: 422, error: { param: 'prompt' } })
  const long = runRequest({ ...raw, prompt: '', promptTokens: new Array(5000).fill(5), stream: false })
  expect(await answerOf(await post(running, long))).toMatchObject({ status: 413 })
})

const FIM = ['<｜fim▁begin｜>', '<｜fim▁hole｜>', '<｜fim▁end｜>']
const gap: Partial<Run> = {
  ...raw,
  prompt: `${FIM[0]}a${FIM[1]}b${FIM[2]}`,
  needs: { tokens: FIM, param: 'suffix' },
  stream: false,
}

test('a gap is filled by a model that has the tokens for it, and by no other', async () => {
  script = { ids: [70, 1] }
  expect(await answerOf(await post(await start(), runRequest(gap)))).toMatchObject({
    ...{ status: 422, error: { code: 'invalid_parameter', param: 'suffix' } },
  })
  await node?.drain()
  const able = await start({ SPARROW_MODEL_DIR: checkpoint({}, FIM) })
  expect(await answerOf(await post(able, runRequest(gap)))).toMatchObject({ status: 200 })
  const tokens = [...(engine.submitted[0]?.tokens ?? [])]
  expect([tokens[0], tokens.at(-1), tokens.includes(2049)]).toEqual([2048, 2050, true])
})

test('a checkpoint with a chat template registers it, and its answers are taken apart by their tags', async () => {
  const template = '{% for m in messages %}<u>{{ m.content }}{% endfor %}'
  const modelDir = checkpoint({
    'chat_template.jinja': template,
    'tokenizer_config.json': JSON.stringify({
      bos_token: { content: '<s>' },
      eos_token: '</s>',
      chat_template: 'other',
    }),
  })
  const running = await start({ SPARROW_MODEL_DIR: modelDir })
  const { chatFormat, template: source } = edge.registrations.at(-1) ?? {}
  const registered = templateSchema.parse(source)
  expect(registered).toMatchObject({ template, bos: '<s>', eos: '</s>' })
  expect(registered.specials).toContain('<think>')
  expect(chatFormat).toBe(templateName(registered))
  const { encode } = await loadTokenizer(MODEL)
  const { ids } = await encode('hm</think>\n\nLet me.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>')
  script = { ids: [...ids, 1] }
  const request = runRequest({ chatFormat: chatFormat ?? '', thinking: true, prompt: '<u>hi<think>', stream: false })
  expect(await answerOf(await post(running, request))).toMatchObject({
    choices: [
      {
        finish_reason: 'tool_calls',
        message: {
          ...{ content: 'Let me.', reasoning_content: 'hm' },
          tool_calls: [{ function: { name: 'f', arguments: '{"a": 1}' } }],
        },
      },
    ],
  })
  expect(await answerOf(await post(running, runRequest()))).toMatchObject({ status: 503 })
})

test('a template that cannot be read, or none where one is demanded, stops the start with a word on it', async () => {
  const settings = (modelDir: string) => ({ SPARROW_MODEL_DIR: modelDir, SPARROW_CHAT_FORMAT: 'jinja' })
  await expect(start({ SPARROW_CHAT_FORMAT: 'smoke_signals' })).rejects.toThrow(/known: auto, jinja, deepseek_v32/)
  await expect(start(settings(MODEL))).rejects.toThrow(/brings no chat template/)
  await expect(start(settings(checkpoint({ 'chat_template.jinja': '{% for' })))).rejects.toThrow(/cannot be read/)
})

test('a stream that waits begins with comments; a whole answer does not', async () => {
  script = { ids: [], queued: true }
  const running = await start({ SPARROW_KEEP_ALIVE_SECONDS: '0.05' })
  const response = await post(running, runRequest())
  expect(response.status).toBe(200)
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  while (text.split(': keep-alive\n\n').length < 4) text += (await reader?.read())?.value ?? ''
  expect(text.replaceAll(': keep-alive\n\n', '')).toBe('')
  await reader?.cancel()
  await until('the receipt', () => edge.receipts.length === 1)
  expect(edge.receipts[0]).toMatchObject({ finish: 'cancelled', missTokens: 0, outputTokens: 0 })
})

test.each([
  ['anthropic_messages', /event: ping\ndata: \{"type":"ping"\}\n\n/g],
  ['openai_responses', /event: keepalive\ndata: \{"type":"keepalive","sequence_number":\d+\}\n\n/g],
])('a slow stream of %s has events of its own where others have comments', async (dialect, alive) => {
  const { promise: until, resolve: goOn } = Promise.withResolvers<void>()
  script = { ids: [70, 71, 1], pauses: { at: 1, until } }
  const running = await start({ SPARROW_KEEP_ALIVE_SECONDS: '0.05' })
  const reader = (await post(running, runRequest({ dialect }))).body?.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  const more = async (): Promise<boolean> => {
    const part = await reader?.read()
    text += part?.value ?? ''
    return part?.done === false
  }
  while ((text.match(alive) ?? []).length < 3) expect(await more()).toBe(true)
  goOn()
  while (await more());
  const begun = text.slice(text.indexOf('event: '))
  expect(begun).not.toContain(': keep-alive')
  expect(begun).toMatch(/event: (message_stop|response.completed)\n.*\n\n$/)
  const numbers = [...text.matchAll(/"sequence_number":(\d+)/g)].map(([, n]) => Number(n))
  expect(numbers).toEqual(numbers.map((_, i) => i))
})

test('comments stand between the chunks of a slow stream, which is otherwise as ever', async () => {
  script = { ids: [70, 71, 1], stepMs: 120 }
  const running = await start({ SPARROW_KEEP_ALIVE_SECONDS: '0.05' })
  const text = await (await post(running, runRequest())).text()
  expect(text).toContain(': keep-alive\n\n')
  expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
  const roles = chunksOf(text).filter((chunk) => JSON.stringify(chunk).includes('"role":"assistant"'))
  expect(roles.length).toBe(1)
})
