// Sessions as a public API sees them: a few system prompts shared by many, turns that grow on what was said, bursts. Seeded.

/** Mulberry32: small, fast, the same everywhere. */
export const random = (seed: number): (() => number) => {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

export const BLOCK_TOKENS = 64

export interface Request {
  readonly session: number
  /** Milliseconds. */
  readonly at: number
  /** Full blocks of the prompt by name: equal names, equal text up to there. */
  readonly blocks: readonly string[]
  readonly promptTokens: number
  readonly outputTokens: number
}

export interface TraceOptions {
  readonly sessions: number
  readonly seed: number
  /** All sessions begin within this time. */
  readonly spanMs: number
  readonly systemPrompts: number
}

const blocksOf = (system: number, systemTokens: number, session: number, tokens: number): string[] => {
  const shared = Math.floor(systemTokens / BLOCK_TOKENS)
  return Array.from({ length: Math.floor(tokens / BLOCK_TOKENS) }, (_, i) =>
    i < shared ? `s${system}.${i}` : `c${session}.${i}`,
  )
}

/** Turns of all sessions in order of time: 1 to 12 turns, 4 on average, half a minute apart; 256 to 4,096 system tokens. */
export const trace = ({ sessions, seed, spanMs, systemPrompts }: TraceOptions): Request[] => {
  const next = random(seed)
  const exponential = (mean: number): number => -mean * Math.log(1 - next())
  const between = (low: number, high: number): number => Math.floor(low * (high / low) ** next())
  const systems = Array.from({ length: systemPrompts }, () => between(256, 4096))
  const requests: Request[] = []
  for (let session = 0; session < sessions; session++) {
    // Zipf: the most used system prompt opens a fifth of all sessions.
    const system = Math.min(systemPrompts - 1, Math.floor(systemPrompts ** next()) - 1)
    const systemTokens = systems[system] ?? 0
    let tokens = systemTokens
    let at = next() * spanMs
    const turns = Math.min(12, 1 + Math.floor(exponential(3.4)))
    for (let turn = 0; turn < turns; turn++) {
      tokens += between(16, 800)
      const outputTokens = between(16, 800)
      requests.push({
        session,
        at,
        blocks: blocksOf(system, systemTokens, session, tokens),
        promptTokens: tokens,
        outputTokens,
      })
      tokens += outputTokens
      at += 2000 + exponential(30_000) + outputTokens * 20
    }
  }
  return requests.sort((a, b) => a.at - b.at)
}
