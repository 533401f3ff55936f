// A URL's query against its zod schema; the error names the parameter at fault.
import type { z } from 'zod'
import { fail, ok, type Result } from '../schema/errors.ts'

export const readQuery = <T>(schema: z.ZodType<T>, asked: Record<string, string>): Result<T> => {
  const parsed = schema.safeParse(asked)
  if (parsed.success) return ok(parsed.data)
  const [issue] = parsed.error.issues
  const param = String(issue?.path[0] ?? '')
  return fail('invalid_parameter', { message: `${param}: ${issue?.message}`, param })
}
