// A result in words, for the terminal.
import { median } from '../statistics.ts'
import type { Pairs } from './pairs.ts'
import type { PeerResult } from './result.ts'

const list = (values: readonly number[]): string => values.map((x) => x.toFixed(2)).join(' ')
const percent = (part: number, whole: number): string =>
  Number.isFinite(whole) && whole > 0 ? `${((100 * part) / whole).toFixed(0)}%` : '-'

const spread = (all: { least: number; median: number; most: number }): string =>
  `${all.least.toExponential(1)} to ${all.most.toExponential(1)}, median ${all.median.toExponential(1)}`

const row = (what: string, { median: middle, ratios, ceiling }: Pairs): string => {
  const speed = `${what.padEnd(22)} ${middle.ours.toFixed(1).padStart(8)} tok/s, ${percent(middle.ours, ceiling)} of ${ceiling.toFixed(0)}`
  if (middle.peer === null || middle.ratio === null) return `${speed.padEnd(58)} llama.cpp left out`
  const theirs = `llama.cpp ${middle.peer.toFixed(1).padStart(7)}, ${percent(middle.peer, ceiling)}`
  return `${speed.padEnd(58)} ${theirs.padEnd(24)} ratio ${middle.ratio.toFixed(2)} (${list(ratios)})`
}

export const reportLines = (result: PeerResult): string[] => {
  const { machine, limits } = result
  const range = (values: readonly number[]): string =>
    [Math.min(...values), median(values), Math.max(...values)].map((x) => (x / 1e9).toFixed(0)).join(' / ')
  return [
    `${machine.cpu}, ${machine.cores} cores, ${result.threads} threads, ${machine.date}, tree ${machine.commit}`,
    `around our turns, least / median / most: ${range(limits.map((l) => l.readBytes))} GB/s, ${range(limits.map((l) => l.bf16Flops))} GFLOP/s BF16; ceilings by the median at their depth`,
    `${result.shape}, ${(result.parameters / 1e6).toFixed(0)}M parameters, BF16: ${result.ours} against ${result.peer}`,
    `medians of ${result.pairs} pairs, ours / llama.cpp in brackets pair by pair`,
    ...result.depths.flatMap(({ depth, prefill, decode, skipped }) => [
      row(`prefill depth ${depth}`, prefill),
      row(`decode  depth ${depth}`, decode),
      ...(skipped ? [`  left out: ${skipped}`] : []),
    ]),
    ...result.batches.map(({ sequences, decode }) => row(`decode  ${sequences} sequences`, decode)),
    ...result.answers.map(
      (a) =>
        `answers after ${a.tokens} tokens, ${a.prompts} prompts, llama.cpp's likeliest ${a.compared}: the largest difference of a probability ${spread(a.probability)}, of its logarithm ${spread(a.logProbability)}; same likeliest token ${a.sameLikeliest} times`,
    ),
  ]
}
