// A call's arguments as clients send them back: they may be those of a call that was cut off, which are no whole JSON.
import { cutObject, isJson } from './python_json.ts'

/** Text of a JSON object, of one that breaks off the members that are whole; `undefined` when it is neither. */
export const argumentsObject = (given: string): string | undefined => {
  const text = given.trim() || '{}'
  // Vercel's AI SDK sends what it could not read as a JSON string.
  const value = text.startsWith('"') && isJson(text) ? String(JSON.parse(text)).trim() : text
  if (!value.startsWith('{')) return undefined
  return isJson(value) ? value : cutObject(value)
}
