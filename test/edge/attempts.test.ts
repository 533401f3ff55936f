// Attempts of one run, node by node: when they count as load, and when a node is given up.
import { env } from 'cloudflare:workers'
import { expect, test } from 'vitest'
import { inFlight } from '../../edge/fleet.ts'
import { type Dispatch, dispatch } from '../../edge/flow/retry.ts'
import type { Candidate } from '../../edge/router.ts'
import type { RunRequest } from '../../schema/wire.ts'
import { MODEL } from './world.ts'

const candidate = (id: string): Candidate => ({
  ...{ id, address: env.NODE_ADDRESSES[id] ?? '', running: 0, waiting: 0, kvPages: 100, kvPagesUsed: 0, hitTokens: 0 },
  ...{ prefillTokensPerSecond: 1000, heartbeatAt: Date.now(), contextTokens: 4096 },
})

/** The little servers look at nothing but `stream`. */
const runTo = (ids: readonly string[], stream: boolean, changes: Partial<Dispatch> = {}): Dispatch => ({
  secret: env.SPARROW_SECRET,
  nodes: ids.map(candidate),
  request: { run: { requestId: crypto.randomUUID(), model: MODEL, stream } } as Omit<RunRequest, 'attempt'>,
  promptTokens: 10,
  signal: new AbortController().signal,
  onAttempt: async () => {},
  ...changes,
})

test('a run counts as load of its node before its account is told where it goes', async () => {
  const seen: [string, number][] = []
  const onAttempt = async ({ id }: Candidate): Promise<void> => void seen.push([id, inFlight.count(id)])
  const answered = await dispatch(runTo(['down', 'good'], false, { onAttempt }))
  expect(seen).toEqual([
    ['down', 1],
    ['good', 1],
  ])
  if (answered.ok) answered.ended(false)
  const failing = async (): Promise<void> => Promise.reject(new Error('Network connection lost.'))
  await expect(dispatch(runTo(['good'], false, { onAttempt: failing }))).rejects.toThrow('connection lost')
  expect(['down', 'good'].map((id) => inFlight.count(id))).toEqual([0, 0])
})
