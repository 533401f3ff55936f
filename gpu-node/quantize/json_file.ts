// JSON files of a checkpoint, which come from anywhere: what is wrong is said in one line that names the file.
import type { z } from 'zod'

export const parseJson = <T>(file: string, schema: z.ZodType<T>, text: string): T => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new Error(`${file}: is no JSON`)
  }
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new Error(`${file}: ${[...(issue?.path ?? []), issue?.message ?? 'is malformed'].join(': ')}`)
}
