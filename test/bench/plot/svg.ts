// A line chart as one SVG: logarithmic x, y from zero, every series named at its end. It brings its own background, so that
// it can be read whether the page around it is light or dark.

export interface Series {
  readonly name: string
  readonly tone: 'ours' | 'peer' | 'ceiling'
  readonly points: readonly (readonly [x: number, y: number])[]
}

export interface Chart {
  readonly title: string
  readonly subtitle: string
  readonly xLabel: string
  readonly yLabel: string
  readonly series: readonly Series[]
}

const [WIDTH, HEIGHT] = [760, 420]
const BOX = { left: 66, right: 600, top: 88, bottom: 362 } as const
const LINE_GAP = 17
const VALUE_GAP = 13
/** Room for the first value beside the axis. */
const INSET = 26

const COLOURS = {
  light: { page: '#ffffff', text: '#1f2328', quiet: '#59636e', grid: '#d8dee4', ours: '#0969da', peer: '#bc4c00' },
  dark: { page: '#0d1117', text: '#f0f6fc', quiet: '#9198a1', grid: '#30363d', ours: '#58a6ff', peer: '#f0883e' },
} as const

const rules = (c: (typeof COLOURS)[keyof typeof COLOURS]): string =>
  [
    `.page{fill:${c.page}} text{fill:${c.text}} .quiet{fill:${c.quiet}} .grid{stroke:${c.grid}}`,
    ...Object.entries({ ours: c.ours, peer: c.peer, ceiling: c.quiet }).map(
      ([tone, colour]) => `path.${tone}{stroke:${colour}} circle.${tone},text.${tone}{fill:${colour}}`,
    ),
  ].join(' ')

const STYLE = `text{font:13px system-ui,sans-serif} .title{font-size:16px;font-weight:600} .small{font-size:11px} .end{font-weight:600}
path{fill:none;stroke-width:2.5;stroke-linejoin:round} path.ceiling{stroke-width:1.5;stroke-dasharray:6 4} ${rules(COLOURS.light)}
@media (prefers-color-scheme:dark){${rules(COLOURS.dark)}}`

const escapeXml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')

const text = (x: number, y: number, content: string, kind = '', anchor = 'start'): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${kind && ` class="${kind}"`} text-anchor="${anchor}">${escapeXml(content)}</text>`

/** 4096 is 4K. */
export const shortNumber = (n: number): string => (n >= 1024 && n % 1024 === 0 ? `${n / 1024}K` : String(n))

const speed = (y: number): string => (y >= 100 ? y.toFixed(0) : y >= 10 ? y.toFixed(1) : y.toFixed(2))

/** A step of 1, 2 or 5 times a power of ten that cuts `most` into at most five. */
export const niceStep = (most: number): number => {
  const power = 10 ** Math.floor(Math.log10(most / 5))
  return power * ([1, 2, 5, 10].find((factor) => (factor * power * 5) / most > 0.999) ?? 10)
}

const scales = (series: readonly Series[]) => {
  const points = series.flatMap((s) => s.points)
  const xs = [...new Set(points.map(([x]) => x))].sort((a, b) => a - b)
  const lowest = Math.log2(xs.find((x) => x > 0) ?? 1)
  // Nothing lies at zero on a logarithmic axis: it gets a place of its own, one doubling before the first.
  const place = (x: number): number => (x === 0 ? lowest - 1 : Math.log2(x))
  const [from, to] = [place(xs[0] ?? 1), place(xs.at(-1) ?? 1)]
  const most = Math.max(...points.map(([, y]) => y))
  const step = niceStep(most)
  const top = Math.ceil(most / step - 1e-9) * step
  return {
    xs,
    step,
    top,
    x: (value: number): number =>
      BOX.left + INSET + (to > from ? ((BOX.right - BOX.left - INSET) * (place(value) - from)) / (to - from) : 0),
    y: (value: number): number => BOX.bottom - ((BOX.bottom - BOX.top) * value) / top,
  }
}
type Scales = ReturnType<typeof scales>

const axes = (chart: Chart, at: Scales): string[] => {
  const out: string[] = []
  for (let i = 0; i * at.step <= at.top * 1.0001; i++) {
    const [value, y] = [i * at.step, at.y(i * at.step)]
    out.push(`<line class="grid" x1="${BOX.left}" x2="${BOX.right}" y1="${y.toFixed(1)}" y2="${y.toFixed(1)}"/>`)
    out.push(text(BOX.left - 8, y + 4, String(Number(value.toPrecision(6))), 'quiet', 'end'))
  }
  for (const x of at.xs) out.push(text(at.x(x), BOX.bottom + 20, shortNumber(x), 'quiet', 'middle'))
  out.push(text((BOX.left + BOX.right) / 2, BOX.bottom + 42, chart.xLabel, 'quiet', 'middle'))
  out.push(text(BOX.left, BOX.top - 12, chart.yLabel, 'quiet'))
  return out
}

const drawn = (series: Series, at: Scales): string => {
  const spots = series.points.map(([x, y]) => [at.x(x).toFixed(1), at.y(y).toFixed(1)] as const)
  const path = `<path class="${series.tone}" d="M${spots.map((spot) => spot.join(' ')).join(' L')}"/>`
  if (series.tone === 'ceiling') return path
  return path + spots.map(([x, y]) => `<circle class="${series.tone}" cx="${x}" cy="${y}" r="3.5"/>`).join('')
}

/** Values under their points, or over them where a point or value is in the way; where one is in both, none. */
const values = (series: readonly Series[], at: Scales): string[] => {
  const valued = series.filter((s) => s.tone !== 'ceiling')
  const taken = valued.flatMap(({ points }) => points.map(([x, y]) => ({ x: at.x(x), y: at.y(y) + 4 })))
  const out: string[] = []
  for (const { tone, points } of valued) {
    for (const [x, y] of points) {
      const spot = [at.y(y) + 18, at.y(y) - 10]
        .map((middle) => ({ x: at.x(x), y: middle }))
        .find((s) => s.y < BOX.bottom && !taken.some((t) => t.x === s.x && Math.abs(t.y - s.y) < VALUE_GAP))
      if (!spot) continue
      taken.push(spot)
      out.push(text(spot.x, spot.y, speed(y), `small ${tone}`, 'middle'))
    }
  }
  return out
}

/** Names beside the last points, moved apart where they would touch. */
const names = (series: readonly Series[], at: Scales): string[] => {
  const ends = series
    .map(({ name, tone, points }) => {
      const [x, y] = points.at(-1) ?? [0, 0]
      return { name, tone, x: at.x(x) + 12, y: at.y(y) + 4 }
    })
    .sort((a, b) => a.y - b.y)
  let free = Number.NEGATIVE_INFINITY
  for (const end of ends) {
    end.y = Math.max(end.y, free)
    free = end.y + LINE_GAP
  }
  let floor = BOX.bottom + 4
  for (const end of ends.reverse()) {
    end.y = Math.min(end.y, floor)
    floor = end.y - LINE_GAP
  }
  return ends.map(({ name, tone, x, y }) => text(x, y, name, `end ${tone}`))
}

/** Series without points are left out. */
export const lineChart = (chart: Chart): string => {
  const series = chart.series.filter(({ points }) => points.length > 0)
  if (series.length === 0) throw new Error(`${chart.title}: nothing to draw`)
  const at = scales(series)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img">`,
    `<title>${escapeXml(`${chart.title}: ${series.map(({ name }) => name).join(', ')}`)}</title>`,
    `<style>${STYLE}</style>`,
    `<rect class="page" width="${WIDTH}" height="${HEIGHT}" rx="6"/>`,
    text(24, 30, chart.title, 'title'),
    text(24, 50, chart.subtitle, 'quiet small'),
    ...axes(chart, at),
    ...series.map((each) => drawn(each, at)),
    ...values(series, at),
    ...names(series, at),
    '</svg>\n',
  ].join('\n')
}
