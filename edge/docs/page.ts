// The reference under /docs: one static page out of the OpenAPI document, without a script, a font or a call to anywhere.
import { createHash } from 'node:crypto'
import { html, raw } from 'hono/html'
import type { JsonSchema, OpenApiDocument } from '../../schema/openapi/document.ts'
import { OPERATIONS, type Operation } from '../../schema/openapi/operations.ts'

type Html = ReturnType<typeof html>

const STYLE = `
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent) }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 54rem; margin: 0 auto; padding: 2rem 1rem 6rem }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line) } h3 { margin-top: 2.5rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em } code, .type { overflow-wrap: anywhere } pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line) }
ul.fields { list-style: none; padding-left: 0 } ul.fields ul.fields { padding-left: 1.2rem; border-left: 1px solid var(--line) }
ul.fields > li { padding: .2rem 0 } .type { opacity: .75 } summary { cursor: pointer }
nav ul { columns: 2 16rem; padding-left: 1rem } .method { font-weight: 600; text-transform: uppercase }
`

/** Nothing but this style is allowed on the page. */
export const DOCS_HEADERS = {
  'content-security-policy': `default-src 'none'; style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'public, max-age=3600',
}

const list = (value: unknown): JsonSchema[] => (Array.isArray(value) ? (value as JsonSchema[]) : [])

const branches = (schema: JsonSchema): JsonSchema[] => [...list(schema.anyOf), ...list(schema.oneOf)]

/** In a few words: `string`, `"auto" | "none"`, `object[]`. */
const typeText = (schema: JsonSchema): string => {
  if (schema.const !== undefined) return JSON.stringify(schema.const)
  if (Array.isArray(schema.enum)) return schema.enum.map((value) => JSON.stringify(value)).join(' | ')
  const many = branches(schema)
  if (many.length > 0) return [...new Set(many.map(typeText))].join(' | ')
  if (schema.type === 'array') return `${typeText((schema.items ?? {}) as JsonSchema)}[]`
  const types = [schema.type ?? 'any'].flat()
  return types.join(' | ')
}

const BOUNDS = { minimum: 'at least', maximum: 'at most', maxLength: 'characters at most', maxItems: 'items at most' }

const boundsText = (schema: JsonSchema): string => {
  const own = [schema, ...branches(schema)].find((one) => Object.keys(BOUNDS).some((key) => key in one)) ?? {}
  return Object.entries(BOUNDS)
    .filter(([key]) => typeof own[key] === 'number' && Math.abs(own[key]) < Number.MAX_SAFE_INTEGER)
    .map(([key, text]) => `${text} ${String(own[key])}`)
    .join(', ')
}

/** Text in which backticks stand around code. */
const prose = (text: string): Html[] =>
  text.split('`').map((part, i) => (i % 2 === 0 ? html`${part}` : html`<code>${part}</code>`))

const DEPTH_MAX = 5

/** Objects that a value may be, through arrays and alternatives. */
const objectsIn = (schema: JsonSchema): JsonSchema[] => {
  if (schema.properties !== undefined) return [schema]
  return [...branches(schema), ...(schema.items ? [schema.items as JsonSchema] : [])].flatMap(objectsIn)
}

const fields = (schema: JsonSchema, depth: number): Html => {
  const required = new Set(Array.isArray(schema.required) ? schema.required : [])
  const properties = Object.entries((schema.properties ?? {}) as Record<string, JsonSchema>)
  return html`<ul class="fields">${properties.map(([name, of]) => field(name, of, required.has(name), depth))}</ul>`
}

const field = (name: string, schema: JsonSchema, isRequired: boolean, depth: number): Html => {
  const inner = depth < DEPTH_MAX ? objectsIn(schema) : []
  const bounds = boundsText(schema)
  const notes = [isRequired ? 'required' : '', bounds, String(schema.description ?? '')].filter(Boolean).join('; ')
  const line = html`<code>${name}</code> <span class="type">${typeText(schema)}</span> ${prose(notes)}`
  if (inner.length === 0) return html`<li>${line}</li>`
  return html`<li><details><summary>${line}</summary>${inner.map((one) => fields(one, depth + 1))}</details></li>`
}

const anchor = ({ id }: Operation): string => id

const shape = (title: string, schema: JsonSchema | undefined): Html | '' =>
  schema ? html`<h4>${title}</h4>${objectsIn(schema).map((one) => fields(one, 0))}` : ''

/** Each status but that of success, and what it means. */
const errorsOf = ({ method, path }: Operation, { paths }: OpenApiDocument): Html[] =>
  Object.entries(paths[path]?.[method]?.responses ?? {}).flatMap(([status, { description }]) =>
    status === '200' ? [] : [html`<li><code>${status}</code> ${description}</li>`],
  )

const operationHtml = (operation: Operation, document: OpenApiDocument): Html => {
  const { schemas } = document.components
  const { method, path, also, summary, description, parameters = [], body, answer, event, error } = operation
  return html`<section id="${anchor(operation)}">
<h3><span class="method">${method}</span> <code>${path}</code></h3>
<p>${prose(summary)}.${also.length > 0 ? html` Also <code>${also.join(', ')}</code>.` : ''} ${prose(description ?? '')}</p>
${parameters.length > 0 ? html`<h4>Parameters</h4><ul class="fields">${parameters.map((p) => html`<li><code>${p.name}</code> <span class="type">in ${p.in}</span> ${prose(p.description)}</li>`)}</ul>` : ''}
${shape('Request', body && schemas[body.name])}
${shape('Answer', schemas[answer.name])}
${event ? html`<details><summary>Events of a stream</summary>${objectsIn(schemas[event.name] ?? {}).map((one) => fields(one, 1))}</details>` : ''}
<details><summary>Errors</summary><ul class="fields">${errorsOf(operation, document)}</ul>${shape('Their form', schemas[error.name])}</details>
</section>`
}

export const docsPage = (document: OpenApiDocument, origin: string): Html => {
  const tags = [...new Set(OPERATIONS.map(({ tag }) => tag))]
  const of = (tag: string) => OPERATIONS.filter((operation) => operation.tag === tag)
  return html`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Sparrow API</title><style>${raw(STYLE)}</style></head>
<body>
<h1>Sparrow API</h1>
<p>Base address <code>${origin}</code>. Send your key as <code>Authorization: Bearer sk-...</code>, or as <code>x-api-key</code>.
The same in a machine's words: <a href="/openapi.json">/openapi.json</a>.</p>
<pre>curl ${origin}/v1/chat/completions -H "Authorization: Bearer $SPARROW_API_KEY" \\
  -H 'Content-Type: application/json' \\
  -d '{"model":"deepseek-chat","messages":[{"role":"user","content":"What is the capital of France?"}],"temperature":0}'</pre>
<nav><ul>${OPERATIONS.map((one) => html`<li><a href="#${anchor(one)}">${one.method.toUpperCase()} ${one.path}</a></li>`)}</ul></nav>
${tags.map((tag) => html`<h2>${tag}</h2>${of(tag).map((one) => operationHtml(one, document))}`)}
</body>
</html>`
}
