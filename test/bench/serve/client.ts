// One streamed request and the times of what came. Plain HTTP, so that the generator costs the machine little.
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { createParser } from 'eventsource-parser'
import { z } from 'zod'
import type { Sample } from './summary.ts'
import type { Message } from './workload.ts'

export interface Target {
  /** Without /v1. */
  readonly url: string
  readonly key: string
  readonly model: string
  readonly osl: number
  readonly timeoutMs: number
}

const chunkSchema = z.object({
  error: z.object({ code: z.string().nullish() }).optional(),
  choices: z
    .array(z.object({ delta: z.object({ content: z.string().nullish(), reasoning_content: z.string().nullish() }) }))
    .optional(),
  usage: z
    .object({
      prompt_tokens: z.number(),
      completion_tokens: z.number(),
      prompt_tokens_details: z.object({ cached_tokens: z.number().nullish() }).nullish(),
    })
    .nullish(),
})

const refusalSchema = z.object({ error: z.object({ code: z.string().nullish() }) })

const codeOf = (status: number, body: string): string => {
  try {
    return `${status} ${refusalSchema.parse(JSON.parse(body)).error.code ?? ''}`.trim()
  } catch {
    return String(status)
  }
}

const agents = { 'http:': new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY }), 'https:': undefined }

const send = (target: Target, messages: readonly Message[], signal: AbortSignal): Promise<IncomingMessage> => {
  const url = new URL('v1/chat/completions', `${target.url.replace(/\/$/, '')}/`)
  const { model, osl, key } = target
  const body = JSON.stringify({
    ...{ model, messages, max_tokens: osl, temperature: 0, ignore_eos: true },
    ...{ stream: true, stream_options: { include_usage: true } },
  })
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
  const isHttps = url.protocol === 'https:'
  return new Promise((resolve, reject) => {
    const how = { method: 'POST', headers, signal, agent: agents[isHttps ? 'https:' : 'http:'] }
    const call = (isHttps ? httpsRequest : httpRequest)(url, how, resolve)
    call.once('error', reject)
    call.end(body)
  })
}

/** Asks once. `due`: when it should have been sent, `performance.now()`. Never rejects. */
export const ask = async (
  target: Target,
  messages: readonly Message[],
  due: number,
  stop: AbortSignal,
): Promise<Sample> => {
  const lag = Math.max(0, performance.now() - due)
  const gaps: number[] = []
  let ttft: number | undefined
  let last = 0
  let usage: z.infer<typeof chunkSchema>['usage']
  let error: string | undefined = 'no end'
  const parser = createParser({
    onEvent: ({ data }) => {
      if (data === '[DONE]') {
        if (error === 'no end') error = undefined
        return
      }
      const chunk = chunkSchema.parse(JSON.parse(data))
      if (chunk.error) error = chunk.error.code ?? 'error frame'
      usage = chunk.usage ?? usage
      const delta = chunk.choices?.[0]?.delta
      if (!delta?.content && !delta?.reasoning_content) return
      const now = performance.now()
      if (ttft === undefined) ttft = now - due
      else gaps.push(now - last)
      last = now
    },
  })
  const signal = AbortSignal.any([stop, AbortSignal.timeout(target.timeoutMs)])
  try {
    const response = await send(target, messages, signal)
    response.setEncoding('utf8')
    if (response.statusCode === 200) for await (const text of response) parser.feed(text as string)
    else {
      let body = ''
      for await (const text of response) body += text
      error = codeOf(response.statusCode ?? 0, body)
    }
  } catch (failure) {
    const { code, message } = failure as NodeJS.ErrnoException
    error = code ?? message
  }
  // A request that is aborted once its head is here ends its response without an error.
  if (error !== undefined && signal.aborted) error = stop.aborted ? 'not done in time' : 'timeout'
  return {
    ...{ lag, ttft, gaps, e2e: performance.now() - due, error },
    promptTokens: usage?.prompt_tokens ?? 0,
    cachedTokens: usage?.prompt_tokens_details?.cached_tokens ?? 0,
    outputTokens: usage?.completion_tokens ?? 0,
  }
}
