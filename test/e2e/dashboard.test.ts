// The dashboard in a real Chromium, over what `npm start` boots: a key signs in, pays for a request and reads its charge, exact.
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { post, priceOf, settled } from './customer.ts'
import { bootTestStack, MODEL, type TestStack } from './stack.ts'

/** The one that CHROMIUM names, else Debian's. */
const places = [
  process.env.CHROMIUM ?? (process.env.PATH ?? '').split(delimiter).map((one) => join(one, 'chromium')),
].flat()
const found = places.find((place) => existsSync(place)) ?? ''
const isThere = found !== ''
if (!isThere)
  console.warn('no Chromium here, so the dashboard is not tested in one: apt-get install chromium, or set CHROMIUM')

const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking']

const EVIL = '<img src=x onerror="document.title=1">'

describe.skipIf(!isThere)('in Chromium', () => {
  let stack: TestStack
  let browser: Browser
  let evil: string
  let evilKey: string
  beforeAll(async () => {
    // The profile is a new one, which Playwright removes.
    const args = [...ARGS, '--disable-component-update', '--disable-sync']
    ;[stack, browser] = await Promise.all([bootTestStack(), chromium.launch({ executablePath: found, args })])
    const account = await stack.admin<{ id: string }>('POST', '/accounts', { name: 'evil', creditNano: 5_000_000_000 })
    evil = account.id
    evilKey = (await stack.admin<{ key: string }>('POST', '/keys', { account: account.id, name: 'k' })).key
  })
  afterAll(async () => {
    await browser?.close()
    await stack?.remove()
  })

  /** Every complaint of the page, violations of its policy among them; an answer that is no 200 is one, too. */
  const open = async (options: BrowserContextOptions = {}): Promise<{ page: Page; complaints: string[] }> => {
    const context = await browser.newContext({ locale: 'en-US', timezoneId: 'Asia/Kolkata', ...options })
    const page = await context.newPage()
    const complaints: string[] = []
    page.on('console', (message) => void complaints.push(message.text()))
    page.on('pageerror', (error) => void complaints.push(error.message))
    await page.goto(`${stack.baseUrl}/dashboard`)
    return { page, complaints }
  }
  const signIn = async (page: Page, key = stack.key): Promise<void> => {
    await page.getByLabel('API key').fill(key)
    await page.getByRole('button', { name: 'Show usage' }).click()
  }
  const usd = (nano: number): string => `$${(nano / 1e9).toFixed(9)}`
  const isInside = (page: Page) => page.evaluate<boolean>('document.documentElement.scrollWidth <= innerWidth')

  test('a new key is told how to begin; then its charge is there, exact, and open to its last line', async () => {
    const { page, complaints } = await open()
    await signIn(page)
    await page.getByText('Nothing was charged yet').waitFor()
    expect(await page.locator('pre').innerText()).toContain(`curl ${stack.baseUrl}/v1/chat/completions`)
    const long = `Repeat: ${'Anna Ben Clara '.repeat(40)}`
    const ask = async (content: string) => {
      const answer = await post(stack, { messages: [{ role: 'user', content }], max_tokens: 8 })
      await answer.text()
      const id = answer.headers.get('x-request-id') ?? ''
      return { id, charge: await settled(stack, id) }
    }
    const first = await ask(`${long}x`)
    const second = await ask(`${long}y`)
    expect(second.charge.tokens?.cached).toBeGreaterThan(0)
    await page.getByRole('button', { name: 'Refresh' }).click()
    const rows = page.locator('.requests > tbody > tr')
    await expect.poll(() => rows.count()).toBe(2)
    const charges = [second.charge, first.charge]
    const shown = await rows.locator('td:last-child').allTextContents()
    expect(shown).toEqual(charges.map(({ charge_nano: nano }) => usd(nano)))
    const total = charges.reduce((sum, one) => sum + one.charge_nano, 0)
    expect(total).toBe(charges.reduce((sum, one) => sum + priceOf(one), 0))
    const card = (name: string) => page.locator('.card', { hasText: name }).locator('.figure').innerText()
    expect(await card('Spend')).toBe(usd(total))
    expect(await page.locator('.card', { hasText: 'Balance' }).locator('.hint').innerText()).toBe('of the account')
    expect(await card('Saved by caching')).toBe(usd((second.charge.tokens?.cached ?? 0) * 252))

    await rows.first().getByRole('button').click()
    const lines = page.locator('.lines')
    await lines.waitFor()
    expect(await lines.locator('tbody td:last-child').allInnerTexts()).toEqual(
      second.charge.lines.map(({ amount_nano: nano }) => usd(nano)),
    )
    expect(await lines.locator('tfoot td:last-child').innerText()).toBe(usd(second.charge.charge_nano))
    await page.getByRole('button', { name: 'leave the cache' }).click()
    await page.locator('.miss').waitFor()
    expect(await page.locator('.miss').innerText()).toContain('of turn 1 (user)')
    expect(await page.locator('.miss').innerText()).toContain(first.id)

    const [file] = await Promise.all([
      page.waitForEvent('download'),
      page.locator('section', { hasText: 'Settled' }).getByRole('button', { name: 'Export CSV' }).click(),
    ])
    const csv = await new Response((await file.createReadStream()) as unknown as BodyInit).text()
    for (const { id, charge } of [first, second])
      expect(csv).toMatch(new RegExp(`^${id},.*,${charge.charge_nano},0,`, 'm'))

    // The key stays in the tab: over a reload, but in no address and no storage that lasts.
    await page.reload()
    await rows.first().waitFor()
    const kept = await page.evaluate('[location.href, JSON.stringify(localStorage), document.cookie]')
    expect(kept).toEqual([`${stack.baseUrl}/dashboard`, '{}', ''])
    await page.getByRole('button', { name: 'Forget key' }).click()
    await page.getByLabel('API key').waitFor()
    expect(await page.evaluate('JSON.stringify(sessionStorage)')).toBe('{}')
    expect(complaints).toEqual([])
  })

  test('a phone in the dark: nothing lies beyond its edge, and the keyboard walks the days', async () => {
    const { page, complaints } = await open({
      viewport: { width: 360, height: 740 },
      isMobile: true,
      colorScheme: 'dark',
    })
    expect(await isInside(page)).toBe(true)
    await signIn(page)
    const opener = page.locator('.opener').first()
    await opener.focus()
    await page.keyboard.press('Enter')
    await page.locator('.lines').waitFor()
    expect(await isInside(page)).toBe(true)
    const light = (color: string) => Number(/\d+/.exec(color)?.[0])
    const background = await page.evaluate<string>('getComputedStyle(document.body).backgroundColor')
    expect(light(background)).toBeLessThan(60)
    const days = page.getByRole('slider')
    await days.focus()
    const today = await days.getAttribute('aria-valuetext')
    await page.keyboard.press('ArrowLeft')
    expect([today, await days.getAttribute('aria-valuetext')]).toEqual([
      expect.stringContaining('cached input $'),
      expect.stringContaining('nothing'),
    ])
    expect(complaints).toEqual([])
  })

  test('an amount of any size stays in its card', async () => {
    const { page } = await open({ viewport: { width: 1280, height: 800 } })
    const infos = [{ currency: 'USD', total_balance: '9007199.254740991', held_balance: '9007199.254740990' }]
    await page.route('**/user/balance', (route) =>
      route.fulfill({ json: { is_available: true, balance_infos: infos } }),
    )
    await signIn(page, evilKey)
    const balance = page.locator('.card', { hasText: 'Balance' }).locator('.figure')
    await balance.waitFor()
    expect(await balance.textContent()).toBe('$9,007,199.254740991')
    const note = page.locator('.card', { hasText: 'Balance' }).locator('.hint')
    expect(await note.textContent()).toBe('$9,007,199.254740990 of it held by requests under way')
    const fits = '[...document.querySelectorAll(".figure")].every((one) => one.scrollWidth <= one.clientWidth)'
    expect(await page.evaluate<boolean>(fits)).toBe(true)
  })

  test('a wrong key, and one that is revoked, are answered in the API’s words; what is shown stays when the network goes', async () => {
    const { page } = await open()
    const wordsFor = async (key: string): Promise<string> => {
      const answer = await fetch(`${stack.baseUrl}/user/balance`, { headers: { authorization: `Bearer ${key}` } })
      expect(answer.status).toBe(401)
      return ((await answer.json()) as { error: { message: string } }).error.message
    }
    const alert = page.getByRole('alert')
    // The last two cannot be sent at all.
    for (const wrong of [`${stack.key.slice(0, -1)}x`, 'sk 1', 'ключ']) {
      await signIn(page, wrong)
      await alert.waitFor()
      expect(await alert.innerText()).toBe(await wordsFor(wrong.startsWith('sk-') ? wrong : 'invalid'))
      await page.reload()
    }
    const made = await stack.admin<{ id: string; key: string }>('POST', '/keys', { account: evil, name: 'revoked' })
    await signIn(page, made.key)
    await page.getByText('Nothing was charged yet').waitFor()
    await stack.admin('POST', `/keys/${made.id}/revoke`)
    await page.getByRole('button', { name: 'Refresh' }).click()
    await alert.waitFor()
    expect(await alert.innerText()).toContain(await wordsFor(made.key))
    await page.getByRole('button', { name: 'Use another key' }).click()
    await signIn(page)
    await page.locator('.opener').first().waitFor()
    await page.context().setOffline(true)
    await page.getByRole('button', { name: 'Refresh' }).click()
    await page.getByRole('alert').waitFor()
    expect(await page.getByRole('alert').innerText()).toContain('Check your connection')
    expect(await page.locator('.opener').count()).toBe(2)
    await page.context().setOffline(false)
    await page.getByRole('button', { name: 'Try again' }).click()
    await expect.poll(() => page.getByRole('alert').count()).toBe(0)
    const limited = { status: 429, headers: { 'retry-after': '1' }, json: { error: { message: 'Slower.' } } }
    await page.route('**/user/balance', (route) => route.fulfill(limited), { times: 1 })
    await page.getByRole('button', { name: 'Refresh' }).click()
    await page.getByText('Slower.').waitFor()
    // It comes back by itself.
    await expect.poll(() => page.getByRole('alert').count(), { timeout: 20_000 }).toBe(0)
  })

  test('what an operator or an attacker put into a name is text, wherever it stands', async () => {
    const { page, complaints } = await open()
    const day = new Date().toISOString().slice(0, 10)
    const tokens = { prompt: 2, cached: 1, uncached: 1, output: 1 }
    const costs = { cached_nano: 28, uncached_nano: 280, output_nano: 926, saved_nano: 252, refund_nano: 0 }
    const one = { requests: 1, tokens, charge_nano: 1234, charge_usd: '0.000001234', credit_nano: 0, costs }
    const names = [EVIL, MODEL, 'javascript:alert(1)']
    const data = names.map((model) => ({ date: day, model, ...one }))
    const request = { object: 'usage.request', api_key_id: EVIL, state: 'settled', settled_at: Date.now(), ...one }
    const row = { ...request, request_id: EVIL, model: EVIL, finish: EVIL, tokens: { ...tokens, reasoning: 0 } }
    const how = {
      lines: [{ item: EVIL, quantity: 1, unit_nano: 1234, amount_nano: 1234 }],
      ...{ price_version: 0, hold: { amount_nano: 2000, at: 0, returned_nano: 766 }, credit_nano: 0 },
      attempts: [{ attempt: 1, node: EVIL, outcome: EVIL }],
      timing: { opened_at: 0, first_token_at: null, closed_at: 9 },
      receipt: { node: EVIL, epoch: EVIL, seq: 1, signature: EVIL },
    }
    await page.route('**/v1/usage/daily', (route) => route.fulfill({ json: { from: day, to: day, data } }))
    await page.route('**/v1/usage', (route) => route.fulfill({ json: { data: [row], has_more: false } }))
    await page.route('**/v1/usage/%3Cimg*', (route) => route.fulfill({ json: { ...row, ...how } }))
    await page.route('**/prefix', (route) => route.fulfill({ status: 404, json: { error: { message: EVIL } } }))
    await signIn(page, evilKey)
    await page.locator('.opener').click()
    await page.getByRole('button', { name: 'leave the cache' }).click()
    await page.getByRole('alert').waitFor()
    expect(await page.getByText(EVIL).count()).toBeGreaterThan(6)
    expect(await page.locator('img, a[href^="javascript"], [onerror]').count()).toBe(0)
    expect(await page.title()).toBe('Usage · Sparrow')
    expect(await page.locator('.requests td.number').last().innerText()).toBe('$0.000001234')
    expect(complaints.filter((text) => !text.includes('404'))).toEqual([])
  })
})
