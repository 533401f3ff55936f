// A process of addon.test.ts. `listener`: one sequence's listener throws beside another sequence. `threads`: threads are ended
// while their engines open and while they work.
import { once } from 'node:events'
import { join } from 'node:path'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import type { SequenceSpec } from '../../gpu-node/engine/engine.ts'
import { openNativeEngine } from '../../gpu-node/engine/native.ts'
import { collect, GREEDY, prompt } from './engines.ts'
import { GOLDENS } from './golden.ts'

const open = () => openNativeEngine({ modelDir: join(GOLDENS, 'v32_mtp_copies'), tokenBytes: [] })
const spec: SequenceSpec = { ...GREEDY, tokens: prompt(30, 90), maxTokens: 40, ignoreEos: true }

const listener = async (): Promise<void> => {
  const thrown = new Set<string>()
  process.on('uncaughtException', ({ message }) => thrown.add(message))
  const engine = await open()
  engine.submit(spec, () => {
    throw new Error('of a listener')
  })
  const timer = setTimeout(() => process.exit(3), 30_000)
  const { ids } = await collect(engine, spec)
  clearTimeout(timer)
  await engine.close()
  console.log(ids.length, ...thrown)
}

const threads = async (): Promise<void> => {
  for (let i = 0; i < 12; i++) {
    const thread = new Worker(new URL(import.meta.url))
    for (let heard: unknown; heard !== (i % 2 === 0 ? 'opens' : 'works'); ) [heard] = await once(thread, 'message')
    await thread.terminate()
  }
  console.log('still here')
}

const work = async (): Promise<void> => {
  parentPort?.postMessage('opens')
  const engine = await open()
  for (let i = 0; i < 8; i++) engine.submit({ ...spec, maxTokens: 400, cacheSalt: String(i) }, () => {})
  parentPort?.postMessage('works')
}

if (!isMainThread) await work()
else if (process.argv[2] === 'listener') await listener()
else await threads()
