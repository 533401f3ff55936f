// Edge tests run inside workerd, with real D1 and Durable Objects. Nodes are the little servers of nodes.ts; the real node is
// driven by test/e2e.
import { resolve } from 'node:path'
import { cloudflareTest, readD1Migrations } from '@cloudflare/vitest-pool-workers'
import { defineConfig } from 'vitest/config'
import { buildDashboard } from '../../scripts/build_dashboard.ts'
import { serveTestNodes } from './nodes.ts'

const secret = (name: string): string => `test-only-${name}-`.padEnd(40, 'x')

await buildDashboard()

export default defineConfig(async () => ({
  plugins: [
    cloudflareTest({
      wrangler: { configPath: '../../wrangler.toml' },
      miniflare: {
        bindings: {
          SPARROW_SECRET: secret('sparrow'),
          ADMIN_SECRET: secret('admin'),
          JOIN_TOKEN: secret('join'),
          NODE_ADDRESSES: await serveTestNodes(),
          TEST_MIGRATIONS: await readD1Migrations(resolve(import.meta.dirname, '../../schema/migrations')),
        },
      },
    }),
  ],
  test: {
    name: 'edge',
    include: ['**/*.test.ts'],
    setupFiles: ['./setup.ts'],
    testTimeout: 240_000,
    hookTimeout: 240_000,
    sequence: { groupOrder: 3 },
  },
}))
