// npm run engine -- logits: the likeliest next tokens after a prompt, with their log-probabilities.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { openNativeEngine } from '../engine/native.ts'
import { loadTokenizer, type Tokenizer } from '../tokenizer.ts'
import { CliError, type Command, directoryOption, integerOption } from './command.ts'

const PREFILL_CHUNK = 256

export interface Candidate {
  readonly token: number
  /** Natural logarithm, over the whole vocabulary. */
  readonly logprob: number
  /** When the checkpoint has a tokenizer that knows the token; bytes that are no UTF-8 show as U+FFFD. */
  readonly text?: string
}

export interface NextTokens {
  readonly model: string
  readonly isa: string
  readonly tokens: readonly number[]
  readonly top: readonly Candidate[]
}

/** The `top` largest, likeliest first, then lower id. Errors: CliError when a logit is not finite. */
export const likeliest = (logits: Float32Array, top: number): Candidate[] => {
  const largest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  const total = largest + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - largest), 0))
  if (!Number.isFinite(total)) throw new CliError("the model's output is not finite")
  return Array.from(logits, (x, token) => ({ token, logprob: x - total }))
    .sort((a, b) => b.logprob - a.logprob || a.token - b.token)
    .slice(0, top)
}

const readOptions = (args: readonly string[]) => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      model: { type: 'string' },
      tokens: { type: 'string' },
      text: { type: 'string' },
      top: { type: 'string', default: '20' },
      isa: { type: 'string', default: 'auto' },
      threads: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  })
  const model = directoryOption('model', values.model)
  if ((values.tokens === undefined) === (values.text === undefined))
    throw new CliError('one of --tokens and --text is needed')
  return {
    model,
    tokens: values.tokens?.split(',').map((part) => integerOption('tokens', part.trim(), 0)),
    text: values.text,
    top: integerOption('top', values.top, 1),
    isa: values.isa,
    json: values.json,
    ...(values.threads === undefined ? {} : { threads: integerOption('threads', values.threads, 1) }),
  }
}

const promptOf = async (o: ReturnType<typeof readOptions>, tokenizer?: Tokenizer): Promise<number[]> => {
  if (o.tokens) return o.tokens
  if (!tokenizer) throw new CliError(`--text: ${o.model} has no tokenizer.json; use --tokens`)
  const { ids } = await tokenizer.encode(o.text ?? '')
  if (ids.length === 0) throw new CliError('--text: no token in it')
  return [...ids]
}

const textOf = (tokenizer: Tokenizer | undefined, token: number): { text?: string } => {
  const bytes = tokenizer?.textBytes[token]
  return bytes?.length ? { text: new TextDecoder().decode(bytes) } : {}
}

const nextTokens = async (o: ReturnType<typeof readOptions>): Promise<NextTokens> => {
  const tokenizer = existsSync(join(o.model, 'tokenizer.json')) ? await loadTokenizer(o.model) : undefined
  const prompt = await promptOf(o, tokenizer)
  const { model: modelDir, isa, threads } = o
  const engine = await openNativeEngine({
    ...{ modelDir, isa, tokenBytes: [], kvPages: 1 },
    ...(threads ? { threads } : {}),
  })
  try {
    const { vocabSize, isa: used } = engine.info
    const outside = prompt.find((id) => id >= vocabSize)
    if (outside !== undefined) throw new CliError(`--tokens: ${outside} is no token id from 0 to ${vocabSize - 1}`)
    const top = likeliest(engine.nextLogits(Int32Array.from(prompt), PREFILL_CHUNK), o.top)
    return {
      model: modelDir,
      isa: used,
      tokens: prompt,
      top: top.map((candidate) => ({ ...candidate, ...textOf(tokenizer, candidate.token) })),
    }
  } finally {
    await engine.close()
  }
}

const table = ({ isa, tokens, top }: NextTokens): string => {
  const rows = top.map(({ token, logprob, text }) =>
    [
      String(token).padStart(8),
      logprob.toFixed(4).padStart(9),
      `${(100 * Math.exp(logprob)).toFixed(2)}%`.padStart(8),
      text === undefined ? '' : JSON.stringify(text),
    ].join('  '),
  )
  const title = `after ${tokens.length} token${tokens.length === 1 ? '' : 's'}, ${isa}`
  return [title, '   token    logprob     share  text', ...rows].join('\n')
}

export const logits: Command = {
  usage:
    'logits --model DIR (--tokens 1,2,3 | --text "...") [--top 20] [--isa auto] [--threads N] [--json]\n' +
    '    the likeliest next tokens; text is encoded as it stands, special tokens by their names, nothing added',
  async run(args) {
    const options = readOptions(args)
    const answer = await nextTokens(options)
    return options.json ? JSON.stringify(answer) : table(answer)
  },
}
