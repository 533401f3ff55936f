// `npm run engine`: the command line as a user runs it, its answers against the goldens, its errors one line and exit 2.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import type { NextTokens } from '../../gpu-node/cli/logits.ts'
import { runCli } from '../../gpu-node/cli/main.ts'
import { loadTokenizer } from '../../gpu-node/tokenizer.ts'
import { GOLDENS, MODEL_DIR, readGolden } from './golden.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const PROMPT = '<｜begin▁of▁sentence｜><｜User｜>What is the capital of France?<｜Assistant｜></think>'

/** Through the npm script's own file, in a process of its own. */
const shell = (...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> =>
  new Promise((resolve) => {
    execFile(process.execPath, ['scripts/engine.mjs', ...args], { cwd: ROOT }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
    )
  })

const logits = async (...args: string[]): Promise<NextTokens> => {
  const { code, text } = await runCli(['logits', ...args, '--json'])
  expect(code, text).toBe(0)
  return JSON.parse(text) as NextTokens
}

/** Log-probabilities after the golden's last token. */
const lastRow = (name: string) => {
  const golden = readGolden(name)
  const tokens = Array.from(golden.get('ids')?.data ?? [])
  const all = Array.from(golden.get('logits')?.data ?? [])
  const row = all.slice(-all.length / tokens.length)
  const total = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0))
  return { tokens, logprobs: row.map((x) => x - total) }
}

test.each([
  ['v2_lite', 'scalar'],
  ['v32_groups_yarn', 'reference'],
])('logits as in the golden: %s on %s', async (name, isa) => {
  const { tokens, logprobs } = lastRow(name)
  const wanted = logprobs.map((logprob, token) => ({ token, logprob })).sort((a, b) => b.logprob - a.logprob)
  const options = ['--model', join(GOLDENS, name), '--tokens', tokens.join(','), '--isa', isa, '--threads', '1']
  const five = await logits(...options, '--top', '5')
  expect(five).toMatchObject({ isa, tokens })
  expect(five.top.map(({ token }) => token)).toEqual(wanted.slice(0, 5).map(({ token }) => token))
  const all = await logits(...options, '--top', '1000')
  expect(all.top).toHaveLength(logprobs.length)
  for (const { token, logprob, text } of all.top) {
    expect(Math.abs(logprob - (logprobs[token] ?? 0))).toBeLessThan(1e-4)
    expect(text).toBeUndefined()
  }
})

test('text in, text out, through the npm script, and the same as by ids', async () => {
  const { code, stdout } = await shell('logits', '--model', MODEL_DIR, '--text', PROMPT, '--json')
  expect(code).toBe(0)
  const answer = JSON.parse(stdout) as NextTokens
  const tokenizer = await loadTokenizer(MODEL_DIR)
  expect(answer.tokens).toEqual(Array.from((await tokenizer.encode(PROMPT)).ids))
  expect(answer.top).toHaveLength(20)
  expect(answer.top[0]).toMatchObject({ text: 'The' })
  expect(answer.top[0]?.logprob).toBeGreaterThan(-0.1)
  expect(await logits('--model', MODEL_DIR, '--tokens', answer.tokens.join(','))).toEqual(answer)
})

test('a table for people', async () => {
  const { text } = await runCli(['logits', '--model', MODEL_DIR, '--text', PROMPT, '--top', '2'])
  const lines = text.split('\n')
  expect(lines).toHaveLength(4)
  expect(lines[0]).toMatch(/^after \d+ tokens, \w+$/)
  expect(lines[2]).toMatch(/^ +\d+ +-0\.\d{4} +\d+\.\d\d% {2}"The"$/)
})

test.each([
  [[], /^engine: a command is needed; known: logits/],
  [['hasOwnProperty'], /^engine: unknown command 'hasOwnProperty'; known: logits/],
  [['logits', '--model', 'no/such/folder', '--tokens', '1'], /--model: no such directory: no\/such\/folder/],
  [['logits', '--tokens', '1'], /--model is needed/],
  [['logits', '--model', 'README.md', '--tokens', '1'], /--model: no such directory/],
  [['logits', '--model', 'edge', '--tokens', '1'], /config.json: no such file/],
  [['logits', '--model', MODEL_DIR], /one of --tokens and --text is needed/],
  [['logits', '--model', MODEL_DIR, '--tokens', '1', '--text', 'a'], /one of --tokens and --text is needed/],
  [['logits', '--model', MODEL_DIR, '--tokens', '1,two'], /--tokens: 'two' is no whole number from 0/],
  [['logits', '--model', MODEL_DIR, '--tokens', '1,,2'], /--tokens: '' is no whole number/],
  [['logits', '--model', MODEL_DIR, '--tokens', '1,4294967297'], /--tokens: \d+ is no token id from 0 to 2047/],
  [['logits', '--model', MODEL_DIR, '--tokens', '2048'], /--tokens: 2048 is no token id from 0 to 2047/],
  [['logits', '--model', MODEL_DIR, '--tokens', '-1'], /--tokens/],
  [['logits', '--model', MODEL_DIR, '--text', ''], /--text: no token in it/],
  [['logits', '--model', join(GOLDENS, 'v2_lite'), '--text', 'a'], /has no tokenizer.json; use --tokens/],
  [['logits', '--model', MODEL_DIR, '--tokens', '1', '--top', '0'], /--top: '0' is no whole number from 1/],
  [['logits', '--model', MODEL_DIR, '--tokens', '1', '--threads', 'x'], /--threads: 'x' is no whole number from 1/],
  [['logits', '--model', MODEL_DIR, '--tokens', '1', '--isa', 'sse'], /isa 'sse'/],
  [['logits', '--model', MODEL_DIR, '--tokens', '1', '--depth', '4'], /Unknown option '--depth'/],
])('one line and exit 2: %j', async (args, message) => {
  const { code, text } = await runCli(args)
  expect(text).toMatch(message)
  expect(text).not.toContain('\n')
  expect(code).toBe(2)
})

test('an error goes to stderr, and its code out of the process', async () => {
  const { code, stdout, stderr } = await shell('logit')
  expect(stderr).toBe("engine: unknown command 'logit'; known: logits\n")
  expect(stdout).toBe('')
  expect(code).toBe(2)
})

test('--help is no error', async () => {
  expect(await runCli(['--help'])).toMatchObject({ code: 0, text: expect.stringContaining('logits --model DIR') })
  expect(await runCli(['logits', '--help'])).toMatchObject({ code: 0 })
})
