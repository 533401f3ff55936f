// curl, as README.md has it: what a shell sees, streams and plain endpoints.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { OPERATIONS } from '../../../schema/openapi/operations.ts'
import { settled } from '../customer.ts'
import { MODEL, type TestStack } from '../stack.ts'

const run = promisify(execFile)

export const curl = (stack: () => TestStack): void => {
  const ask = async (path: string, body: object | undefined, ...flags: string[]): Promise<string> => {
    const args = [
      '-sS',
      '--no-buffer',
      ...flags,
      `${stack().baseUrl}${path}`,
      '-H',
      `Authorization: Bearer ${stack().key}`,
    ]
    const { stdout } = await run('curl', body ? [...args, '-d', JSON.stringify(body)] : args)
    return stdout
  }
  const question = {
    model: MODEL,
    temperature: 0,
    messages: [{ role: 'user', content: 'What is the capital of France?' }],
  }

  test('a stream in the shell', async () => {
    const text = await ask('/v1/chat/completions', { ...question, stream: true }, '-i')
    expect(text).toMatch(/^HTTP\/1.1 200 OK\r\n/)
    expect(text).toMatch(/content-type: text\/event-stream/i)
    expect(text.match(/^data: \{/gm)?.length).toBeGreaterThan(2)
    expect(text.trimEnd().endsWith('data: [DONE]')).toBe(true)
  })

  test('what the document says of the small endpoints is what they answer', async () => {
    const id = (JSON.parse(await ask('/v1/chat/completions', question)) as { id: string }).id
    await settled(stack(), id)
    const paths = {
      getModel: `/v1/models/${MODEL}`,
      explainUsage: `/v1/usage/${id}`,
      explainPrefix: `/v1/usage/${id}/prefix`,
    }
    for (const { id: operation, path, answer, method } of OPERATIONS) {
      if (method === 'get')
        answer.schema.parse(JSON.parse(await ask({ [operation]: path, ...paths }[operation] ?? '', undefined)))
    }
    const document = JSON.parse(await ask('/openapi.json', undefined)) as { servers: { url: string }[] }
    expect(document.servers).toEqual([{ url: stack().baseUrl }])
    expect(await ask('/docs', undefined)).toContain('<h1>Sparrow API</h1>')
  })

  test('tokens of a prompt, and of a conversation', async () => {
    const plain = JSON.parse(await ask('/tokenize', { model: MODEL, prompt: 'Hello' })) as { tokens: number[] }
    expect(plain).toMatchObject({ count: plain.tokens.length, max_model_len: 4096 })
    const chat = JSON.parse(await ask('/v1/tokenize', question)) as { count: number }
    const answer = JSON.parse(await ask('/v1/chat/completions', question)) as { usage: { prompt_tokens: number } }
    expect(chat.count).toBe(answer.usage.prompt_tokens)
    expect(JSON.parse(await ask('/tokenize', { model: 'none', prompt: 'x' }))).toMatchObject({
      error: { code: 'model_not_found' },
    })
    expect(JSON.parse(await ask('/tokenize', { model: MODEL }))).toMatchObject({ error: { param: 'prompt' } })
  })
}
