// A checkpoint's chat template on its way from the node to the edge, and the name that says which one it is.
import { createHash } from 'node:crypto'
import { z } from 'zod'

/** What the node takes out of its checkpoint and the edge renders with. */
export const templateSchema = z.object({
  template: z
    .string()
    .min(1)
    .max(256 * 1024),
  bos: z.string().max(256),
  eos: z.string().max(256),
  /** Strings that the tokenizer reads as tokens of their own. */
  specials: z.array(z.string().min(1).max(256)).max(8192),
})
export type TemplateSource = z.infer<typeof templateSchema>

const PREFIX = 'jinja:'

export const isTemplateName = (name: string): boolean => name.startsWith(PREFIX)

/** A name that says which template it is: two nodes with one name render alike. */
export const templateName = ({ template, bos, eos, specials }: TemplateSource): string => {
  const hash = createHash('sha256').update(JSON.stringify([template, bos, eos, specials]))
  return PREFIX + hash.digest('hex').slice(0, 24)
}
