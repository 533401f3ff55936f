// A whole node in a process of its own, over a scripted engine that samples for a while and then waits for ever; says its id and address.
import { readSettings } from '../../gpu-node/config.ts'
import { startNode } from '../../gpu-node/node.ts'
import { obeySignals } from '../../gpu-node/signals.ts'
import { scriptedEngine } from './scripted_engine.ts'

const engine = scriptedEngine(() => ({
  ...{ ids: new Array(4000).fill(70), stepMs: 2 },
  pauses: { at: 200, until: new Promise(() => {}) },
}))
const node = await startNode(
  readSettings(process.env),
  async () => engine,
  () => process.exit(1),
)
obeySignals(node)
console.log(JSON.stringify({ nodeId: node.nodeId, address: node.address }))
