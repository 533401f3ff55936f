// One answer of the API, asked for when it is first shown, and again when it failed and the user wants it.
import { useCallback, useEffect, useState } from 'preact/hooks'
import { get, type Result } from './api.ts'

export const useFetched = <T>(key: string, path: string): { result: Result<T> | undefined; again: () => void } => {
  const [result, setResult] = useState<Result<T>>()
  const [turn, setTurn] = useState(0)
  const again = useCallback(() => setTurn((before) => before + 1), [])
  useEffect(() => {
    const stop = new AbortController()
    setResult(undefined)
    get<T>(key, path, stop.signal).then((got) => {
      if (!stop.signal.aborted) setResult(got)
    })
    return () => stop.abort()
  }, [key, path, turn])
  return { result, again }
}
