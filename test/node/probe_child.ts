// A node in a process of its own whose model is loaded when the file PROBE_LOADED is there. The seed of a run says what its
// engine does: 1 hangs, 2 waits for masks, others sample two tokens. Lives on when its journal fails, unlike `main.ts`.
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { readSettings } from '../../gpu-node/config.ts'
import { startNode } from '../../gpu-node/node.ts'
import { obeySignals } from '../../gpu-node/signals.ts'
import { scriptedEngine } from './scripted_engine.ts'

const engine = scriptedEngine(({ seed }) => ({ ids: [70, 71], queued: seed === 1n, held: seed === 2n }))
const load = async () => {
  while (!existsSync(process.env.PROBE_LOADED ?? '')) await sleep(10)
  return engine
}
obeySignals(await startNode(readSettings(process.env), load, () => {}))
