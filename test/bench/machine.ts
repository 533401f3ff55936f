// Where and when a figure was measured, as every result file says it.
import { spawnSync } from 'node:child_process'
import { cpus, totalmem } from 'node:os'
import { z } from 'zod'

export const machineSchema = z.object({
  cpu: z.string(),
  cores: z.number(),
  memoryGiB: z.number(),
  date: z.string(),
  node: z.string(),
  /** What git calls this tree; `-dirty` when it has changes. */
  commit: z.string(),
})
export type Machine = z.infer<typeof machineSchema>

export const limitsSchema = z.object({ readBytes: z.number(), bf16Flops: z.number() })

export const describeMachine = (): Machine => ({
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  cores: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  date: new Date().toISOString(),
  node: process.version,
  commit:
    spawnSync('git', ['describe', '--always', '--dirty'], {
      cwd: import.meta.dirname,
      encoding: 'utf8',
    }).stdout?.trim() || 'unknown',
})
