// `npm run bench:prefix`: which blocks of a prompt should have rows in the prefix index. For two traces (conversations that grow;
// single questions behind shared system prompts): rows written a request against prompt tokens predicted, of those that a node
// with a large enough cache really has. Offline and seeded; a token is taken as four bytes.
import { writeFileSync } from 'node:fs'
import { indexed } from '../../edge/indexed.ts'
import { optionsOf } from './options.ts'
import { BLOCK_TOKENS, type Request, trace } from './router/trace.ts'

const values = optionsOf('prefix', { out: { type: 'string' }, seed: { type: 'string', default: '1' } })
const BYTES_PER_TOKEN = 4
const PAGE_TOKENS = 64
const FRESH_MS = 3_600_000

const options = { sessions: 3000, seed: Number(values.seed), spanMs: 3_600_000, systemPrompts: 60 }
const multiTurn = trace(options)
const seen = new Set<number>()
const traces: Readonly<Record<string, readonly Request[]>> = {
  'multi-turn': multiTurn,
  'shared system prompt': multiTurn.filter(({ session }) => !seen.has(session) && seen.add(session)),
}

const steps: Readonly<Record<string, (places: number[]) => number[]>> = {
  'every block': (places) => places,
  'every 4th': (places) => places.filter((i) => (i + 1) % 4 === 0),
  '16, then every 4th': indexed,
}

/** A block's name: two prompts agree on it when they agree on all text up to its end. */
const nameAt = ({ blocks, session }: Request, tokens: number): string =>
  `${blocks[Math.ceil(tokens / BLOCK_TOKENS) - 1] ?? `tail${session}`}@${tokens}`

const measure = (requests: readonly Request[], blockBytes: number, pick: (places: number[]) => number[]) => {
  const written = new Map<string, number>()
  const cached = new Set<string>()
  let [rows, predicted, truth, prompt] = [0, 0, 0, 0]
  for (const request of requests) {
    const pages = request.blocks
    let have = 0
    while (have < pages.length && cached.has(pages[have] ?? '')) have++
    for (const page of pages) cached.add(page)
    const blocks = Math.floor((request.promptTokens * BYTES_PER_TOKEN) / blockBytes)
    const places = pick(Array.from({ length: blocks }, (_, i) => i))
    const tokensAt = (place: number): number => Math.floor(((place + 1) * blockBytes) / BYTES_PER_TOKEN)
    const known = places.filter((place) => written.has(nameAt(request, tokensAt(place))))
    // What the index says is never more than what lies in whole pages.
    predicted += Math.min(Math.max(0, ...known.map(tokensAt)), have * PAGE_TOKENS)
    truth += have * PAGE_TOKENS
    prompt += request.promptTokens
    for (const place of places) {
      const tokens = tokensAt(place)
      if (tokens > pages.length * PAGE_TOKENS) continue
      const name = nameAt(request, tokens)
      if (request.at - (written.get(name) ?? Number.NEGATIVE_INFINITY) < FRESH_MS) continue
      written.set(name, request.at)
      rows++
    }
  }
  const round = (n: number): number => Math.round(n * 1000) / 1000
  return {
    rowsPerRequest: round(rows / requests.length),
    found: round(predicted / truth),
    cachedShare: round(truth / prompt),
  }
}

const results = Object.entries(traces).flatMap(([name, requests]) =>
  [128, 256, 512, 1024].flatMap((blockBytes) =>
    Object.entries(steps).map(([rows, pick]) => ({
      trace: name,
      blockBytes,
      rows,
      ...measure(requests, blockBytes, pick),
    })),
  ),
)
console.table(results)
if (values.out) writeFileSync(values.out, `${JSON.stringify({ trace: options, results }, null, 1)}\n`)
