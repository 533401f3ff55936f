// Where each turn of a rendered prompt begins, told by its format's own marks: for people who ask where two prompts part.
import { BOS } from './deepseek_v32_marks.ts'

export interface Turn {
  readonly role: 'system' | 'user' | 'assistant' | 'tool'
  /** Characters (UTF-16 code units) of the prompt before its text. */
  readonly at: number
}

type Marks = readonly (readonly [mark: string, role: Turn['role']])[]

/** By chat format. Leading system messages are one turn, as are the tool results that follow one assistant turn. */
const MARKS: Readonly<Record<string, Marks>> = {
  deepseek_v32: [
    [BOS, 'system'],
    ['<｜User｜>', 'user'],
    ['<｜Assistant｜>', 'assistant'],
    ['\n\n<function_results>', 'tool'],
  ],
}

/** In order; a prompt without marks is one turn. Empty ones, such as an absent system message, are left out. */
export const turnsOf = (chatFormat: string, prompt: string): Turn[] => {
  const turns: Turn[] = []
  for (const [mark, role] of MARKS[chatFormat] ?? []) {
    for (let at = prompt.indexOf(mark); at >= 0; at = prompt.indexOf(mark, at + mark.length)) {
      turns.push({ role, at: at + mark.length })
    }
  }
  turns.sort((a, b) => a.at - b.at)
  const starts = new Set(MARKS[chatFormat]?.map(([mark]) => mark))
  const kept = turns.filter(({ at }) => ![...starts].some((mark) => prompt.startsWith(mark, at)))
  return kept.length > 0 ? kept : [{ role: 'user', at: 0 }]
}
