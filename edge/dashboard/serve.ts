// The dashboard as static files: the page is asked for again each time (ETag), what it loads has a hash in its name and stays for a year.
// It has no rights but to run its own script and to call this origin.
import { etag, files, page } from './dist/assets.js'

const POLICY = [
  ...["default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"],
  ...["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
  ...["require-trusted-types-for 'script'", "trusted-types 'none'"],
].join('; ')

const SAFE = { 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' }

const PAGE_HEADERS = {
  ...SAFE,
  ...{ 'content-security-policy': POLICY, 'cross-origin-opener-policy': 'same-origin', 'x-frame-options': 'DENY' },
  ...{ 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-cache', etag },
}

/** A proxy that compresses makes an ETag weak; several may be named. */
const isKnown = (header: string | null): boolean =>
  (header ?? '').split(',').some((one) => one.trim().replace(/^W\//, '') === etag)

export const dashboardPage = (headers: Headers): Response =>
  isKnown(headers.get('if-none-match'))
    ? new Response(null, { status: 304, headers: PAGE_HEADERS })
    : new Response(page, { headers: PAGE_HEADERS })

/** A file of the page; undefined where there is none of this name, as after an update. */
export const dashboardFile = (path: string): Response | undefined => {
  const file = Object.hasOwn(files, path) ? files[path] : undefined
  const kept = { 'content-type': file?.type ?? '', 'cache-control': 'public, max-age=31536000, immutable' }
  return file && new Response(file.body, { headers: { ...SAFE, ...kept } })
}
