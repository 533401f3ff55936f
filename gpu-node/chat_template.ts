// The chat format of this node's checkpoint: DeepSeek-V3.2's own, or the Jinja template that the checkpoint brings.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { ChatFormat } from '../schema/chat/chat_format.ts'
import { CHAT_FORMATS, chatFormatByName, DEFAULT_CHAT_FORMAT } from '../schema/chat/index.ts'
import { templateFormat } from '../schema/chat/template_format.ts'
import { type TemplateSource, templateSchema } from '../schema/chat/template_source.ts'
import { StartError } from './config.ts'

const token = z.union([z.string(), z.object({ content: z.string() }).transform(({ content }) => content)])

const configSchema = z.object({
  chat_template: z.union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))]).nullish(),
  bos_token: token.nullish(),
  eos_token: token.nullish(),
})

const readIfThere = async (path: string): Promise<string | undefined> => {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new StartError(`${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

const readConfig = async (path: string): Promise<z.infer<typeof configSchema>> => {
  try {
    return configSchema.parse(JSON.parse((await readIfThere(path)) ?? '{}'))
  } catch (error) {
    if (error instanceof StartError) throw error
    if (error instanceof z.ZodError)
      throw new StartError(`${path}: ${error.issues[0]?.path.join('.')}: ${error.issues[0]?.message}`)
    throw new StartError(`${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** The checkpoint's template, from the file of its own or from tokenizer_config.json. */
const readTemplate = async (modelDir: string, specials: Iterable<string>): Promise<TemplateSource | undefined> => {
  const config = await readConfig(join(modelDir, 'tokenizer_config.json'))
  const { chat_template: inConfig, bos_token, eos_token } = config
  const named = typeof inConfig === 'string' ? inConfig : inConfig?.find(({ name }) => name === 'default')?.template
  const template = (await readIfThere(join(modelDir, 'chat_template.jinja'))) ?? named
  if (!template) return undefined
  const source = { template, bos: bos_token ?? '', eos: eos_token ?? '', specials: [...specials] }
  const parsed = templateSchema.safeParse(source)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new StartError(`${modelDir}: the chat template: ${issue?.path.join('.')}: ${issue?.message}`)
}

export interface NodeFormat {
  readonly format: ChatFormat
  /** What the edge renders with, where it does not know the format by name. */
  readonly template: TemplateSource | undefined
}

/** `setting`: `auto`, `jinja` or a format's name. Errors: StartError. */
export const chatFormatOf = async (
  setting: string,
  modelDir: string,
  specials: Iterable<string>,
): Promise<NodeFormat> => {
  const named = chatFormatByName(setting)
  if (named) return { format: named, template: undefined }
  if (setting !== 'auto' && setting !== 'jinja') {
    const known = ['auto', 'jinja', ...CHAT_FORMATS.map(({ name }) => name)].join(', ')
    throw new StartError(`SPARROW_CHAT_FORMAT: there is no ${setting}; known: ${known}.`)
  }
  const template = await readTemplate(modelDir, specials)
  if (!template && setting === 'jinja') throw new StartError(`${modelDir} brings no chat template.`)
  if (!template) return { format: DEFAULT_CHAT_FORMAT, template: undefined }
  try {
    return { format: templateFormat(template), template }
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new StartError(`${modelDir}: the chat template cannot be read: ${why}`)
  }
}
