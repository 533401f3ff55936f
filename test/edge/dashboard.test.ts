// The dashboard as it is served: rights, caching, and nothing that is not its own.
import { expect, test } from 'vitest'
import { call } from './world.ts'

const page = (headers: Record<string, string> = {}) => call('/dashboard', { headers })

test('the page may run its own script and call this origin, and nothing else', async () => {
  const { headers } = await page()
  const policy = Object.fromEntries(
    (headers.get('content-security-policy') ?? '').split('; ').map((one) => [one.split(' ')[0], one.split(' ')[1]]),
  )
  expect(policy).toMatchObject({
    ...{ 'default-src': "'none'", 'script-src': "'self'", 'style-src': "'self'", 'connect-src': "'self'" },
    ...{ 'frame-ancestors': "'none'", 'base-uri': "'none'", 'form-action': "'none'", 'trusted-types': "'none'" },
  })
  expect(headers.get('content-security-policy')).not.toContain('unsafe')
  expect(headers.get('content-type')).toBe('text/html; charset=utf-8')
  expect([headers.get('x-content-type-options'), headers.get('referrer-policy')]).toEqual(['nosniff', 'no-referrer'])
})

test('the page is asked for anew each time and sent once; its files stay for a year', async () => {
  const first = await page()
  const html = await first.text()
  const etag = first.headers.get('etag') ?? ''
  expect([first.headers.get('cache-control'), etag]).toEqual(['no-cache', expect.stringMatching(/^"\w+"$/)])
  for (const known of [etag, `W/${etag}`, `"other", ${etag}`]) {
    const again = await page({ 'if-none-match': known })
    expect([again.status, await again.text(), again.headers.get('etag')]).toEqual([304, '', etag])
  }
  expect((await page({ 'if-none-match': '"other"' })).status).toBe(200)
  // What it loads, and no script or style in the page itself.
  const paths = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path = '']) => path)
  expect(html).not.toMatch(/<style|<script(?![^>]*src=)|\son\w+=|style=/)
  expect(paths).toHaveLength(3)
  const types = { js: 'text/javascript; charset=utf-8', css: 'text/css; charset=utf-8', svg: 'image/svg+xml' }
  for (const path of paths) {
    const file = await call(path)
    const type = types[path.split('.').at(-1) as keyof typeof types]
    expect([path, file.status, file.headers.get('content-type')]).toEqual([
      ...[expect.stringMatching(/^\/dashboard\/\w+-[0-9a-f]{12}\.\w+$/), 200, type],
    ])
    expect(file.headers.get('cache-control')).toBe('public, max-age=31536000, immutable')
    expect(file.headers.get('x-content-type-options')).toBe('nosniff')
    expect((await file.text()).length).toBeGreaterThan(100)
  }
  for (const none of ['main-000000000000.js', 'constructor', '__proto__']) {
    expect((await call(`/dashboard/${none}`)).status).toBe(404)
  }
})

test('it weighs little: below 60 KB as it is, of which nothing is loaded from elsewhere', async () => {
  const html = await (await page()).text()
  const paths = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path = '']) => path)
  const bodies = await Promise.all(paths.map(async (path) => (await call(path)).text()))
  expect([html, ...bodies].reduce((sum, text) => sum + new TextEncoder().encode(text).length, 0)).toBeLessThan(60_000)
  // Names of XML are no addresses.
  const addresses = [html, ...bodies].flatMap((text) => text.match(/https?:\/\/[\w./]+/g) ?? [])
  expect(addresses.filter((address) => !address.startsWith('http://www.w3.org/'))).toEqual([])
})
