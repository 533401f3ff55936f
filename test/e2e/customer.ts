// A customer with a raw socket's view of the API: sends, reads as far as it likes, leaves; then looks up what it was charged.
import { connect } from 'node:net'
import { eventually, MODEL, type TestStack } from './stack.ts'

/** Where to ask, and with which key. */
export type Shop = Pick<TestStack, 'baseUrl' | 'key'>

/** `GET /v1/usage/{request_id}`. */
export interface ExplainedCharge {
  readonly state: 'open' | 'settled' | 'void' | 'released'
  readonly finish?: string
  readonly tokens?: {
    readonly prompt: number
    readonly cached: number
    readonly uncached: number
    readonly output: number
  }
  readonly lines: readonly { readonly amount_nano: number }[]
  readonly charge_nano: number
}

export const post = (stack: Shop, body: object, init: RequestInit = {}): Promise<Response> =>
  fetch(`${stack.baseUrl}/v1/chat/completions`, {
    ...init,
    method: 'POST',
    headers: {
      ...{ authorization: `Bearer ${stack.key}`, 'content-type': 'application/json' },
      // workerd hangs up on a connection that was idle for 5 s: on a machine that stalls, just when it is used again.
      ...{ connection: 'close', ...init.headers },
    },
    body: JSON.stringify({ model: MODEL, temperature: 0, ...body }),
  })

/**
 * A client that can leave before any byte of the answer: it resets its connection. By itself workerd hears of a mere close only when it
 * next writes; at Cloudflare the network in front of it tells it of either.
 */
export const postAndLeave = (stack: Shop, body: object): { leave: () => void } => {
  const { hostname, port } = new URL(stack.baseUrl)
  const text = JSON.stringify({ model: MODEL, temperature: 0, ...body })
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {})
  socket.write(
    [
      `POST /v1/chat/completions HTTP/1.1\r\nhost: ${hostname}:${port}\r\nauthorization: Bearer ${stack.key}\r\n`,
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
    ].join(''),
  )
  return { leave: () => void socket.resetAndDestroy() }
}

/** A long copy at a high temperature keeps the model talking. */
export const talkative = (seed: number, extra: object = {}): object => ({
  messages: [{ role: 'user', content: `Repeat: ${'Anna Ben Clara '.repeat(200)}` }],
  ...{ stream: true, max_tokens: 3000, temperature: 2, seed },
  ...extra,
})

export const explain = async (stack: Shop, requestId: string): Promise<ExplainedCharge> => {
  const response = await fetch(`${stack.baseUrl}/v1/usage/${requestId}`, {
    headers: { authorization: `Bearer ${stack.key}` },
  })
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`)
  return (await response.json()) as ExplainedCharge
}

/** The charge once it is in the books. */
export const settled = (stack: Shop, requestId: string, ms = 30_000): Promise<ExplainedCharge> =>
  eventually(async () => {
    const charge = await explain(stack, requestId).catch(() => undefined)
    return charge?.state === 'settled' && charge.lines.length > 0 ? charge : undefined
  }, ms)

export const priceOf = ({ tokens }: ExplainedCharge): number =>
  (tokens?.cached ?? 0) * 28 + (tokens?.uncached ?? 0) * 280 + (tokens?.output ?? 0) * 420

/** Reads until `enough` says so, or to the end; a stream that breaks off is at its end. */
export const readUntil = async (response: Response, enough: (text: string) => boolean): Promise<string> => {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  try {
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
      text += part.value
      if (enough(text)) break
    }
  } catch {
    text += '\n(broken off)'
  }
  return text
}
