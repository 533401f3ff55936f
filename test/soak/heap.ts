// What the Worker's isolate, its Durable Objects with it, holds in JavaScript's heap once the garbage is gone: asked of workerd's debugger.
// Memory of the process says little: it grows under any Worker, an empty one too.
import { z } from 'zod'

const targets = z.array(z.object({ id: z.string(), webSocketDebuggerUrl: z.url() }))
const reply = z.object({ result: z.unknown().optional(), error: z.unknown().optional() })
const usage = z.object({ usedSize: z.number(), backingStorageSize: z.number() })

const open = (url: string): Promise<WebSocket> =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(url)
    socket.onopen = () => resolve(socket)
    socket.onerror = () => reject(new Error(`no debugger at ${url}`))
  })

/** One call; events between, the parts of a snapshot among them, are dropped. */
const ask = (socket: WebSocket, id: number, method: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    socket.onclose = () => reject(new Error(`${method}: the debugger hung up`))
    socket.onmessage = ({ data }) => {
      // A snapshot comes in megabytes of events, none of which begins so.
      if (!String(data).startsWith(`{"id":${id},`)) return
      const { result, error } = reply.parse(JSON.parse(String(data)))
      if (error === undefined) resolve(result)
      else reject(new Error(`${method}: ${JSON.stringify(error)}`))
    }
    socket.send(JSON.stringify({ id, method }))
  })

/** Bytes in use, array buffers included. workerd knows no `collectGarbage`; taking a snapshot begins with one. */
export const heapBytes = async (inspector: URL): Promise<number> => {
  const all = targets.parse(await (await fetch(new URL('/json', inspector))).json())
  const worker = all.find(({ id }) => id === 'worker' || id.startsWith('core:user:'))
  if (!worker) throw new Error(`the debugger knows no Worker, only ${all.map(({ id }) => id).join(', ')}`)
  const socket = await open(worker.webSocketDebuggerUrl)
  try {
    await ask(socket, 1, 'HeapProfiler.takeHeapSnapshot')
    const { usedSize, backingStorageSize } = usage.parse(await ask(socket, 2, 'Runtime.getHeapUsage'))
    return usedSize + backingStorageSize
  } finally {
    socket.onclose = null
    socket.close()
  }
}
