// A URL's query against its zod schema; the error names the parameter at fault.
import { z } from 'zod'
import { fail, ok, type Result } from '../schema/errors.ts'

/** An empty value is no 0: a script whose variable is not set must not get an empty list. */
export const whole = z
  .string()
  .regex(/^\d{1,15}$/, 'must be a whole number')
  .transform(Number)

export const readQuery = <T>(schema: z.ZodType<T>, asked: Record<string, string>): Result<T> => {
  const parsed = schema.safeParse(asked)
  if (parsed.success) return ok(parsed.data)
  const [issue] = parsed.error.issues
  const param = String(issue?.path[0] ?? '')
  return fail('invalid_parameter', { message: `${param}: ${issue?.message}`, param })
}
