// Load from undici's pool: closed loop at a number of connections, open loop at a constant rate. Times in milliseconds.
import { Pool } from 'undici'
import { percentile } from '../statistics.ts'

export interface Target {
  readonly name: string
  readonly origin: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
}

export interface Spread {
  readonly p50: number
  readonly p99: number
  readonly perSecond: number
}

export const spreadOf = (times: readonly number[], seconds: number): Spread => {
  const at = (share: number): number => Math.round(percentile(times, share) * 100) / 100
  return { p50: at(0.5), p99: at(0.99), perSecond: Math.round(times.length / seconds) }
}

export interface Ask {
  readonly stream: boolean
  readonly tokens: number
  /** Milliseconds between two events; each then carries the time it left. */
  readonly pace?: number
  /** More bytes of prompt, so that it has prefix blocks. */
  readonly promptBytes?: number
}

const bodyOf = ({ stream, tokens, pace, promptBytes = 0 }: Ask): string =>
  JSON.stringify({
    ...{
      model: 'zero',
      messages: [{ role: 'user', content: `${'.'.repeat(promptBytes)}Say a word.` }],
      stream,
      max_tokens: tokens,
      seed: pace ?? 0,
    },
  })

export interface Answered {
  readonly wholeMs: number
  readonly firstByteMs: number
  readonly bytes: number
  /** Of paced streams: from the node's write to this reader. */
  readonly lags: readonly number[]
}

export const poolOf = (target: Target, connections: number): Pool =>
  new Pool(target.origin, { connections, pipelining: 1 })

export const once = async (pool: Pool, target: Target, ask: Ask): Promise<Answered> => {
  const begin = performance.now()
  const { statusCode, body } = await pool.request({
    ...{ path: target.path, method: 'POST', body: bodyOf(ask) },
    headers: { 'content-type': 'application/json', ...target.headers },
  })
  let firstByteMs = Number.NaN
  let bytes = 0
  const lags: number[] = []
  for await (const chunk of body as AsyncIterable<Buffer>) {
    if (Number.isNaN(firstByteMs)) firstByteMs = performance.now() - begin
    bytes += chunk.length
    if (ask.pace) {
      const now = performance.timeOrigin + performance.now()
      for (const [, at] of chunk.toString().matchAll(/"at":([\d.]+)/g)) lags.push(now - Number(at))
    }
    if (statusCode !== 200) throw new Error(`${target.name} answered ${statusCode}: ${chunk.toString().slice(0, 200)}`)
  }
  return { wholeMs: performance.now() - begin, firstByteMs, bytes, lags }
}

/** Every connection asks again as soon as it is answered; each begins so many milliseconds behind the one before it. */
export const closedLoop = async (
  target: Target,
  connections: number,
  seconds: number,
  ask: Ask,
  staggerMs = 0,
): Promise<Answered[]> => {
  const pool = poolOf(target, connections)
  const answers: Answered[] = []
  const end = performance.now() + seconds * 1000
  const worker = async (_: unknown, index: number): Promise<void> => {
    if (staggerMs > 0) await new Promise((done) => setTimeout(done, index * staggerMs))
    while (performance.now() < end) answers.push(await once(pool, target, ask))
  }
  try {
    await Promise.all(Array.from({ length: connections }, worker))
  } finally {
    await pool.destroy()
  }
  return answers
}

/** So many a second, whether earlier ones are answered or not; a wait for a connection counts. */
export const openLoop = async (target: Target, rate: number, seconds: number, ask: Ask): Promise<number[]> => {
  const pool = poolOf(target, 64)
  const times: number[] = []
  const begin = performance.now()
  const running: Promise<void>[] = []
  let failure: unknown
  for (let i = 0; i < rate * seconds; i++) {
    const due = begin + (i / rate) * 1000
    const wait = due - performance.now()
    if (wait > 0) await new Promise((done) => setTimeout(done, wait))
    running.push(
      once(pool, target, ask).then(
        () => void times.push(performance.now() - due),
        (error: unknown) => {
          failure ??= error
        },
      ),
    )
  }
  await Promise.all(running)
  await pool.close()
  if (failure) throw failure
  return times
}
