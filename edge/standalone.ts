// The Worker on a workerd of one's own, as `npm start` runs it. Cloudflare tells a Worker who called; here it is told from the socket,
// unless a proxy before it has.
import type { Env } from './env.ts'
import worker from './index.ts'

export { AccountObject } from './index.ts'

const CLIENT = 'cf-connecting-ip'

/** Of `192.0.2.1:4711` or `[2001:db8::1]:4711`. */
const hostOf = (address: unknown): string | undefined =>
  typeof address === 'string' ? /^\[?(.*?)\]?:\d+$/.exec(address)?.[1] : undefined

export default {
  ...worker,
  fetch: (request, env, context) => {
    const ip = hostOf(request.cf?.clientIp)
    if (ip === undefined || request.headers.has(CLIENT)) return worker.fetch(request, env, context)
    const told = new Request(request)
    told.headers.set(CLIENT, ip)
    return worker.fetch(told, env, context)
  },
} satisfies ExportedHandler<Env>
