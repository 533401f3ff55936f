// Every test of the repository: `npm test`. Projects run in groups, so that the slow ones do not fight for the two cores.
import { defineConfig } from 'vitest/config'

const project = (name: string, order: number, testTimeout: number, setupFiles: string[] = []) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    testTimeout,
    setupFiles,
    hookTimeout: 300_000,
    sequence: { groupOrder: order },
  },
})

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      project('unit', 0, 20_000),
      project('tidy', 0, 60_000),
      project('node', 1, 60_000),
      project('engine', 2, 120_000),

      'test/edge/vitest.config.ts',
      project('e2e', 4, 240_000, ['test/e2e/setup.ts']),
    ],
  },
})
