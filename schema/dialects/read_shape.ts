// A client's body against its shape, up to the first fault: no other is told, and a body may have millions.
import { z } from 'zod'
import { LIST_ITEMS_MAX, MEMBERS_MAX } from '../limits.ts'

/** What zod's own yes-or-no check sets; its public types leave it out. */
const FIRST_ONLY: z.core.ParseContextInternal<z.core.$ZodIssue> = { abortEarly: true }

/** For checks of what stands in lists: by itself a value of the right type and the wrong size does not end the reading. */
export const ENDS = { abort: true } as const

/** Why a field is not read at all. Lists of numbers, which are token ids, have a bound of their own. */
const tooMany = (value: unknown): string | undefined => {
  if (Array.isArray(value)) {
    const isLong = value.length > LIST_ITEMS_MAX && typeof value[0] !== 'number'
    return isLong ? `must have at most ${LIST_ITEMS_MAX} items` : undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  return Object.keys(value).length > MEMBERS_MAX ? `must have at most ${MEMBERS_MAX} members` : undefined
}

type Read<T> =
  | { readonly success: true; readonly data: T; readonly error?: undefined }
  | { readonly success: false; readonly error: z.ZodError }

export const readShape = <T>(schema: z.ZodType<T>, body: unknown): Read<T> => {
  for (const [field, value] of Object.entries(body ?? {})) {
    const message = tooMany(value)
    if (message)
      return { success: false, error: new z.ZodError([{ code: 'custom', path: [field], message, input: undefined }]) }
  }
  return schema.safeParse(body, FIRST_ONLY)
}
