import { prompt, GREEDY, collect, withEngine } from './test/engine/engines.ts'
import { rmSync, mkdtempSync } from 'node:fs'
const d = mkdtempSync('/tmp/sched_cache')
await withEngine({ modelDir: 'test/engine/goldens/v32_groups_yarn', kvPages: 8, cacheDir: d, cacheBytes: 2 ** 24 }, async (engine) => {
  const t = setInterval(() => console.log(JSON.stringify(engine.stats())), 1000)
  await Promise.all(Array.from({ length: 12 }, (_, i) => collect(engine, { tokens: prompt(40 + 13 * i, 90, i + 1), cacheSalt: 'o' + i, maxTokens: 150, ignoreEos: true, temperature: 1 })))
  console.log(engine.stats())
  clearInterval(t)
})
rmSync(d, { recursive: true })
