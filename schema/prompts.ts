// A run's prompts: nearly always one; a text completion may bring several, each with `n` answers of its own. Choice `p * n + i` is the
// ith answer to prompt p.
import type { Run } from './wire.ts'

export type RunPrompt = Pick<Run, 'prompt' | 'promptTokens' | 'echoText' | 'echoTokens'>
type Prompts = RunPrompt & Pick<Run, 'n' | 'morePrompts' | 'maxTokens'>

export const promptsOf = (run: RunPrompt & Pick<Run, 'morePrompts'>): readonly RunPrompt[] => [
  run,
  ...(run.morePrompts ?? []),
]

/** The log-probabilities of its tokens are told, so it is computed whole: nothing of it comes from a cache. */
export const isScored = ({ topLogprobs }: Pick<Run, 'topLogprobs'>, { echoText, echoTokens }: RunPrompt): boolean =>
  topLogprobs !== undefined && (echoText !== undefined || echoTokens === true)

export const choicesOf = (run: RunPrompt & Pick<Run, 'n' | 'morePrompts'>): number =>
  (run.n ?? 1) * promptsOf(run).length

/** The most that a run can take: no token is less than a byte. */
export const worstCase = (run: Prompts): { promptBytes: number; maxTokens: number } => {
  const utf8 = new TextEncoder()
  const bytesOf = ({ prompt, promptTokens }: RunPrompt): number => promptTokens?.length ?? utf8.encode(prompt).length
  return {
    promptBytes: promptsOf(run).reduce((sum, prompt) => sum + bytesOf(prompt), 0),
    maxTokens: run.maxTokens * choicesOf(run),
  }
}
