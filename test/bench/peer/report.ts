// A result in words, for the terminal.
import type { Pairs } from './pairs.ts'
import type { PeerResult } from './result.ts'

const list = (values: readonly number[]): string => values.map((x) => x.toFixed(2)).join(' ')
const percent = (part: number, whole: number): string =>
  Number.isFinite(whole) && whole > 0 ? `${((100 * part) / whole).toFixed(0)}%` : '-'

const spread = ({ least, median, most }: { least: number; median: number; most: number }): string =>
  `${least.toExponential(1)} to ${most.toExponential(1)}, median ${median.toExponential(1)}`

const row = (what: string, { median, ratios, ceiling }: Pairs): string => {
  const speed = `${what.padEnd(22)} ${median.ours.toFixed(1).padStart(8)} tok/s, ${percent(median.ours, ceiling)} of ${ceiling.toFixed(0)}`
  if (median.peer === null || median.ratio === null) return `${speed.padEnd(58)} llama.cpp left out`
  const theirs = `llama.cpp ${median.peer.toFixed(1).padStart(7)}, ${percent(median.peer, ceiling)}`
  return `${speed.padEnd(58)} ${theirs.padEnd(24)} ratio ${median.ratio.toFixed(2)} (${list(ratios)})`
}

export const reportLines = (result: PeerResult): string[] => {
  const { machine, limits } = result
  const range = (values: readonly number[], digits: number): string =>
    values.map((x) => (x / 1e9).toFixed(digits)).join(' and ')
  return [
    `${machine.cpu}, ${machine.cores} cores, ${result.threads} threads, ${machine.date}, tree ${machine.commit}`,
    `measured before and after: ${range(
      limits.map((l) => l.readBytes),
      1,
    )} GB/s, ${range(
      limits.map((l) => l.bf16Flops),
      0,
    )} GFLOP/s BF16; ceilings take the larger`,
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
