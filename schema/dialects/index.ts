// The registry of client protocols: one line each.
import { anthropic } from './anthropic.ts'
import { completions } from './completions.ts'
import type { Dialect } from './dialect.ts'
import { openAiChat } from './openai_chat.ts'
import { responses } from './responses.ts'

export const DIALECTS: readonly Dialect[] = [openAiChat, completions, anthropic, responses]

export const dialectByName = (name: string): Dialect | undefined => DIALECTS.find((dialect) => dialect.name === name)

export const dialectByPath = (path: string): Dialect | undefined =>
  DIALECTS.find((dialect) => dialect.paths.includes(path))
