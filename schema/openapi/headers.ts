// Headers of answers: their names, what they say, and where they are sent. Browsers may read all of them (edge/index.ts).

/** What is limited a minute. */
export const RATE_KINDS = ['requests', 'tokens', 'cached-tokens'] as const

const UNITS = {
  requests: 'requests',
  tokens: 'uncached prompt tokens and output',
  'cached-tokens': 'cached prompt tokens',
}

interface Header {
  readonly description: string
  readonly type: 'string' | 'integer' | 'boolean'
}

const text = (description: string): Header => ({ description, type: 'string' })
const whole = (description: string): Header => ({ description, type: 'integer' })
const flag = (description: string): Header => ({ description, type: 'boolean' })

const OF_ALL = {
  'x-request-id': text('Id of the request; of a replayed answer, of the request that was run'),
  'request-id': text('The same, by Anthropic’s name for it'),
}

const RATES: Readonly<Record<string, Header>> = Object.fromEntries(
  RATE_KINDS.flatMap((kind) => [
    [`x-ratelimit-limit-${kind}`, whole(`Limit a minute: ${UNITS[kind]}. Absent without one`)],
    [`x-ratelimit-remaining-${kind}`, whole('What is left of it')],
    [`x-ratelimit-reset-${kind}`, text('Time until all of it is there again, as `120ms`, `1.5s` or `6m0s`')],
  ]),
)

const OF_RUNS = { ...RATES, 'server-timing': text('Milliseconds of each stage at the edge') }
const OF_ANSWERS = {
  'x-should-retry': flag('Whether another try makes sense, for OpenAI’s and Anthropic’s clients'),
}
const OF_KEPT = { 'idempotent-replayed': flag('`true`: the answer kept under this `Idempotency-Key`, once more') }
const OF_LATER = {
  'retry-after': whole('Seconds until another try makes sense'),
  'retry-after-ms': whole('The same in milliseconds'),
}

export const HEADERS: Readonly<Record<string, Header>> = {
  ...OF_ALL,
  ...OF_RUNS,
  ...OF_ANSWERS,
  ...OF_KEPT,
  ...OF_LATER,
}

/** Statuses that say when to come again. */
const LATER: readonly number[] = [409, 429, 503, 529]

/** Names of those that an answer of this status may have. */
export const headersOf = (status: number, isRun: boolean): string[] => [
  ...Object.keys(OF_ALL),
  ...(isRun ? Object.keys(OF_RUNS) : []),
  ...(isRun || status !== 200 ? Object.keys(OF_ANSWERS) : []),
  ...(isRun && status === 200 ? Object.keys(OF_KEPT) : []),
  ...(LATER.includes(status) ? Object.keys(OF_LATER) : []),
]
