// The page under /dashboard until the dashboard proper: says where things are, promises nothing.

export const DASHBOARD_PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sparrow</title>
<style>
  body { font: 16px/1.6 system-ui, sans-serif; max-width: 40rem; margin: 10vh auto; padding: 0 1rem; color-scheme: light dark }
  code { font-family: ui-monospace, monospace }
</style>
<h1>Sparrow</h1>
<p>The API is running. The usage dashboard is not built yet; until then:</p>
<ul>
  <li><code>GET /user/balance</code> with your key shows the balance;</li>
  <li><code>GET /v1/usage</code> with your key shows what it was charged for, request by request (<a href="/docs">reference</a>);</li>
  <li><code>npm run admin -- usage --account NAME</code> shows an operator the newest 1,000 requests and their prices;</li>
  <li><code>npm run admin -- audit</code> checks the books.</li>
</ul>
</html>
`
