// Charts: well-formed, one line a series, every name and depth in words; and which charts a set of results gives.
import { expect, test } from 'vitest'
import { chartsOf, type EngineResult, type Result, resultSchema } from '../bench/plot/charts.ts'
import { type Chart, lineChart, niceStep, shortNumber } from '../bench/plot/svg.ts'
import { summarise } from '../bench/serve/summary.ts'

const machine = {
  cpu: 'A & B <chip>',
  cores: 2,
  memoryGiB: 24,
  date: '2026-11-24T12:00:00Z',
  node: 'v24',
  commit: 'abc',
}
const limits = { readBytes: 33e9, bf16Flops: 469e9 }

const chart: Chart = {
  title: 'Speed "here" & <there>',
  subtitle: 'a machine',
  xLabel: 'depth',
  yLabel: 'tokens a second',
  series: [
    {
      name: 'Sparrow',
      tone: 'ours',
      points: [
        [0, 1500],
        [4096, 1200],
        [16384, 900],
      ],
    },
    {
      name: 'llama.cpp',
      tone: 'peer',
      points: [
        [0, 500],
        [4096, 110],
      ],
    },
    {
      name: 'ceiling',
      tone: 'ceiling',
      points: [
        [0, 2500],
        [4096, 2100],
        [16384, 1450],
      ],
    },
  ],
}

/** Every tag closed in order, nothing but entities after an ampersand: what XML asks of such a file. */
const expectXml = (text: string): void => {
  expect(text.replace(/&(?:amp|lt|gt|quot);/g, '')).not.toContain('&')
  const open: string[] = []
  const rest = text.replace(/<(\/?)([a-z]+)((?:\s[\w:-]+="[^"<]*")*)\s*(\/?)>/g, (_, end, name, _attributes, alone) => {
    if (end) expect(open.pop()).toBe(name)
    else if (!alone) open.push(name)
    return ''
  })
  expect(open).toEqual([])
  expect(rest).not.toMatch(/[<>]/)
}

const texts = (svg: string): string[] => [...svg.matchAll(/<text[^>]*>([^<]*)</g)].map(([, content = '']) => content)

test('a chart is XML with a line for each series, its name and every depth', () => {
  const svg = lineChart(chart)
  expectXml(svg)
  expect(svg.match(/<path/g)).toHaveLength(3)
  expect(svg.match(/<circle/g)).toHaveLength(5)
  for (const label of ['Sparrow', 'llama.cpp', 'ceiling', '0', '4K', '16K', 'depth', 'tokens a second'])
    expect(texts(svg)).toContain(label)
  expect(svg).toContain('prefers-color-scheme:dark')
})

test('every point lies inside, higher for more and further right for deeper, doublings apart', () => {
  const [path = ''] = [...lineChart(chart).matchAll(/<path class="ours" d="M([^"]+)"/g)].map(([, d]) => d)
  const spots = (path ?? '').split(' L').map((spot) => spot.split(' ').map(Number) as [number, number])
  const [zero, first, second] = spots.map(([x]) => x) as [number, number, number]
  expect(first).toBeGreaterThan(zero)
  expect((second - first) / (first - zero)).toBeCloseTo(2, 1) // two doublings after one
  const heights = spots.map(([, y]) => y)
  expect(heights).toEqual([...heights].sort((a, b) => a - b))
  for (const [x, y] of spots) expect(x > 0 && x < 760 && y > 60 && y < 420).toBe(true)
})

test('names keep their distance where lines end together', () => {
  const points = [
    [1, 100],
    [2, 100],
  ] as const
  const close = { ...chart, series: chart.series.map((each) => ({ ...each, points })) }
  const rows = [...lineChart(close).matchAll(/y="([\d.]+)" class="end/g)]
    .map(([, y]) => Number(y))
    .sort((a, b) => a - b)
  expect(rows).toHaveLength(3)
  for (let i = 1; i < rows.length; i++) expect((rows[i] as number) - (rows[i - 1] as number)).toBeGreaterThanOrEqual(17)
})

test('no value lies on a point of the other line', () => {
  const at = (y: number) =>
    [
      [1, y],
      [2, 2 * y],
    ] as const
  const two = { ...chart, series: chart.series.slice(0, 2).map((each, i) => ({ ...each, points: at(i ? 90 : 100) })) }
  const svg = lineChart(two)
  const values = [...svg.matchAll(/x="([\d.]+)" y="([\d.]+)" class="small/g)].map(([, x, y]) => [Number(x), Number(y)])
  const points = [...svg.matchAll(/cx="([\d.]+)" cy="([\d.]+)"/g)].map(([, x, y]) => [Number(x), Number(y) + 4])
  expect(values).toHaveLength(4)
  for (const [x, y] of values as [number, number][])
    for (const [px, py] of points as [number, number][]) if (px === x) expect(Math.abs(py - y)).toBeGreaterThan(12)
})

test('nothing to draw is an error, not an empty picture', () => {
  expect(() => lineChart({ ...chart, series: [] })).toThrow(/nothing to draw/)
})

test.each([
  [2541, 1000],
  [155, 50],
  [100, 20],
  [0.7, 0.2],
])('%d is cut by steps of %d', (most, step) => {
  expect(niceStep(most)).toBeCloseTo(step, 9)
})

test('depths in short', () => {
  expect([0, 256, 1024, 4096, 131072].map(shortNumber)).toEqual(['0', '256', '1K', '4K', '128K'])
})

const pairs = (ours: number, peer: number | null) => ({
  ours: [ours],
  peer: peer === null ? [] : [peer],
  ratios: peer === null ? [] : [ours / peer],
  median: { ours, peer, ratio: peer === null ? null : ours / peer },
  ceiling: 2000,
})

const engineResult = (dense: boolean, speeds: readonly number[]): EngineResult => ({
  kind: 'bench:engine',
  ...{ machine, model: '.sparrow/peer/models/mid/hf', isa: 'avx512bf16', threads: 2, dense, limits: [limits] },
  rows: [
    ...speeds.map((tokensPerSecond, i) => ({
      ...{ what: 'decode' as const, depth: 4096 * 4 ** i, batch: 1, tokensPerSecond, ceiling: 150 },
    })),
    ...[1, 16].map((batch) => ({
      what: 'batch' as const,
      depth: 256,
      batch,
      tokensPerSecond: 99 * batch,
      ceiling: 3000,
    })),
  ],
})

const peerResult: Result = {
  kind: 'bench:peer',
  ...{ machine, threads: 2, limits: [limits], shape: 'mid', parameters: 458e6, ours: 'Sparrow', peer: 'llama.cpp' },
  ...{ prefillTokens: 512, decodeTokens: 64, pairs: 1, answers: [] },
  depths: [
    { depth: 0, prefill: pairs(1500, 500), decode: pairs(150, 120), peerFillSeconds: 0, skipped: null },
    { depth: 32768, prefill: pairs(600, null), decode: pairs(130, null), peerFillSeconds: null, skipped: 'too long' },
  ],
  batches: [{ sequences: 16, prompt: 256, decode: pairs(500, 150) }],
}

test('a result of both engines gives prefill and decode by depth; a batch size alone gives no line', () => {
  const charts = chartsOf([resultSchema.parse(peerResult)])
  expect(charts.map(({ name }) => name)).toEqual(['prefill-mid', 'decode-mid'])
  const points = charts[0]?.chart.series.map(({ name, points }) => [name, points.length])
  expect(points).toEqual([
    ['Sparrow', 2],
    ['llama.cpp', 1],
    ["machine's ceiling", 2],
  ])
  for (const { chart } of charts) expectXml(lineChart(chart))
})

test('runs of one shape on one machine give one chart; of two rows at one depth the first file counts', () => {
  const row = (depth: number, ours: number) => ({
    ...{ depth, prefill: pairs(ours, 1), decode: pairs(ours, 1), peerFillSeconds: 0, skipped: null },
  })
  const near = { ...peerResult, depths: [row(0, 1500), row(4096, 1000)] }
  const deep = { ...peerResult, depths: [row(0, 1), row(32768, 600)] }
  const other = { ...deep, machine: { ...machine, cpu: 'another' } }
  const charts = chartsOf([near, deep, other])
  expect(charts.map(({ name }) => name)).toEqual(['prefill-mid', 'decode-mid'])
  expect(charts[0]?.chart.series[0]?.points).toEqual([
    [0, 1500],
    [4096, 1000],
    [32768, 600],
  ])
})

test('sparse and dense runs of one model give one chart, in milliseconds', () => {
  const charts = chartsOf(
    [engineResult(false, [125, 100]), engineResult(true, [100, 20])].map((r) => resultSchema.parse(r)),
  )
  expect(charts.map(({ name }) => name)).toEqual(['sparse-dense-mid', 'batch-mid'])
  expect(charts[0]?.chart.series.map(({ points }) => points)).toEqual([
    [
      [4096, 8],
      [16384, 10],
    ],
    [
      [4096, 10],
      [16384, 50],
    ],
  ])
})

test('the chart with llama.cpp in it comes before that without', () => {
  const both = {
    ...peerResult,
    batches: [1, 16].map((sequences) => ({ sequences, prompt: 256, decode: pairs(500, 150) })),
  }
  const batch = chartsOf([engineResult(false, [125, 100]), both]).filter(({ name }) => name === 'batch-mid')
  expect(batch).toHaveLength(1)
  expect(batch[0]?.chart.series).toHaveLength(3)
})

test('an open loop gives goodput by rate, with the prefix cache and without', () => {
  const slo = { ttftMs: 1000, itlMs: 100 }
  const points = (['on', 'off'] as const).flatMap((cache) =>
    [1, 2].map((rate) => ({ cache, rate, ...summarise([], 1, slo), goodput: cache === 'on' ? rate : 0.5 })),
  )
  const workload = { workload: 'shared', isl: 3072, prefixShare: 0.8, prefixes: 4, turns: 8, conversations: 8, seed: 1 }
  const result = { kind: 'bench:serve', machine, model: 'sparrow-mini', workload, osl: 16, duration: 30, slo, points }
  const [one, ...others] = chartsOf([resultSchema.parse(result)])
  expect(others).toEqual([])
  expect(one?.chart.series.map(({ name, points }) => [name, points])).toEqual([
    [
      'prefix cache on',
      [
        [1, 1],
        [2, 2],
      ],
    ],
    [
      'prefix cache off',
      [
        [1, 0.5],
        [2, 0.5],
      ],
    ],
  ])
  if (one) expectXml(lineChart(one.chart))
  expect(chartsOf([resultSchema.parse({ ...result, points: points.slice(0, 1) })])).toEqual([])
})
