// Rows of an account as CSV: all pages, exact amounts, nothing that a spreadsheet would run, no half file.
import { existsSync, lstatSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { writeRows } from '../../scripts/admin_rows.ts'

const folder = mkdtempSync(join(tmpdir(), 'sparrow-rows-'))
afterAll(() => rmSync(folder, { recursive: true }))

const row = (seq: number, id = `charge:${seq}`) => ({
  ...{ accountId: 'a', id, kind: 'charge', amountNano: -293_720, seq, balanceAfterNano: 9_007_199_254_740_991 },
  createdAt: 1_800_000_000_000,
})

test('every page is in the file, newest first, with amounts in dollars beside the integers', async () => {
  const file = join(folder, 'ledger.csv')
  const pages = [[row(3), row(2, '=cmd|"x"!A1,b')], [row(1)], []]
  const asked: (string | undefined)[] = []
  const written = await writeRows('ledger', file, async (before) => {
    asked.push(before)
    return pages[asked.length - 1] ?? []
  })
  expect(asked).toEqual([undefined, '2', '1'])
  expect(written).toEqual({ file, rows: 3, sumNano: -881_160 })
  const money = '-293720,-0.000293720'
  const end = '9007199254740991,9007199.254740991,2027-01-15T08:00:00.000Z\r\n'
  expect(readFileSync(file, 'utf8')).toBe(
    'accountId,id,kind,amountNano,amountUsd,seq,balanceAfterNano,balanceAfterUsd,createdAt\r\n' +
      `a,charge:3,charge,${money},3,${end}` +
      `a,"'=cmd|""x""!A1,b",charge,${money},2,${end}` +
      `a,charge:1,charge,${money},1,${end}`,
  )
})

test('prices of a token stay integers; what has no rows has a head', async () => {
  const file = join(folder, 'usage.csv')
  expect(await writeRows('usage', file, async () => [])).toEqual({ file, rows: 0, sumNano: 0 })
  const head = readFileSync(file, 'utf8').trim().split(',')
  expect(head).toEqual(expect.arrayContaining(['hitNano', 'chargedNano', 'chargedUsd', 'holdUsd', 'settledAt']))
  expect(head).not.toContain('hitUsd')
})

test('a page that fails leaves the file that was there, and no other', async () => {
  const file = join(folder, 'kept.csv')
  writeFileSync(file, 'of yesterday')
  const failing = async (before?: string) => {
    if (before) throw new Error('gone')
    return [row(1)]
  }
  await expect(writeRows('ledger', file, failing)).rejects.toThrow('gone')
  expect([readFileSync(file, 'utf8'), existsSync(`${file}.part`)]).toEqual(['of yesterday', false])
})

test('a link keeps leading where it led; what is no file is written to and stays what it is', async () => {
  const [file, link] = [join(folder, 'led_to.csv'), join(folder, 'link.csv')]
  writeFileSync(file, 'of yesterday')
  symlinkSync(file, link)
  await writeRows('ledger', link, async () => [])
  expect(lstatSync(link).isSymbolicLink()).toBe(true)
  expect(readFileSync(file, 'utf8')).toMatch(/^accountId,/)

  // By a link of its own, so that what replaced it would replace no device.
  const full = join(folder, 'full')
  symlinkSync('/dev/full', full)
  await expect(writeRows('ledger', full, async () => [])).rejects.toThrow('ENOSPC')
  expect([lstatSync(full).isSymbolicLink(), existsSync(`${full}.part`)]).toEqual([true, false])
  await expect(writeRows('ledger', folder, async () => [])).rejects.toThrow('EISDIR')
  expect(existsSync(`${folder}.part`)).toBe(false)
})
