// The registry of chat formats: one line each.
import type { ChatFormat } from './chat_format.ts'
import { deepseekV32 } from './deepseek_v32.ts'

export const CHAT_FORMATS: readonly ChatFormat[] = [deepseekV32]

/** The format every model is rendered in until one is registered with another. */
export const DEFAULT_CHAT_FORMAT: ChatFormat = deepseekV32

export const chatFormatByName = (name: string): ChatFormat | undefined =>
  CHAT_FORMATS.find((format) => format.name === name)
