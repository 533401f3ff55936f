// The dashboard's page, script and style into one module that the Worker imports (edge/dashboard/dist/assets.js). Wrangler runs this before it
// bundles (`[build]` in wrangler.toml), and so does the set-up of the edge's tests.
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const APP = fileURLToPath(new URL('../edge/dashboard/app/', import.meta.url))
const BUILT = fileURLToPath(new URL('../edge/dashboard/dist/assets.js', import.meta.url))

const TYPES: Readonly<Record<string, string>> = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
}

const source = (name: string): string => readFileSync(join(APP, name), 'utf8')

const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 12)

const bundled = async (entry: string): Promise<string> => {
  const { outputFiles } = await build({
    entryPoints: [join(APP, entry)],
    ...{ bundle: true, minify: true, write: false, format: 'esm', target: 'es2022', charset: 'utf8' },
    ...{ jsx: 'automatic', jsxImportSource: 'preact', legalComments: 'none' },
  })
  return outputFiles[0]?.text ?? ''
}

/** `page`: the HTML; `files`: by path, which has a hash of what it holds. */
export const dashboardAssets = async () => {
  const parts = {
    'main.js': await bundled('main.tsx'),
    'style.css': await bundled('style/index.css'),
    'icon.svg': source('icon.svg').trim(),
  }
  const files: Record<string, { type: string; body: string }> = {}
  let page = source('page.html')
  for (const [name, body] of Object.entries(parts)) {
    const kind = extname(name)
    const path = `/dashboard/${name.slice(0, -kind.length)}-${hashOf(body)}${kind}`
    files[path] = { type: TYPES[kind] ?? '', body }
    page = page.replaceAll(`{{${name}}}`, path)
  }
  return { page, etag: `"${hashOf(page)}"`, files }
}

/** Writes nothing where nothing changed: a Worker that runs would start anew. */
export const buildDashboard = async (): Promise<void> => {
  const assets = await dashboardAssets()
  const text = Object.entries(assets)
    .map(([name, value]) => `export const ${name} = ${JSON.stringify(value)}\n`)
    .join('')
  if (existsSync(BUILT) && readFileSync(BUILT, 'utf8') === text) return
  mkdirSync(dirname(BUILT), { recursive: true })
  const temporary = `${BUILT}.${process.pid}`
  writeFileSync(temporary, text)
  renameSync(temporary, BUILT)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildDashboard()
