// What went wrong and what to do about it. Where the service said when to come back, that is done by itself.
import { useEffect, useState } from 'preact/hooks'
import type { Failure } from './api.ts'
import { clockText } from './text.tsx'

const ADVICE: Readonly<Record<Failure['kind'], string>> = {
  refused: '',
  wait: '',
  failed: 'This is a fault of the service, not of your key. Try again in a moment.',
  offline: 'Check your connection, then try again.',
}

/** Counts down, then does `then` once. */
const useCountdown = (failure: Failure, then: (() => void) | undefined): number | undefined => {
  const [left, setLeft] = useState(failure.retryAfterSeconds)
  useEffect(() => setLeft(failure.retryAfterSeconds), [failure])
  useEffect(() => {
    if (left === undefined || !then) return
    const timer = setTimeout(() => {
      setLeft(left > 1 ? left - 1 : undefined)
      if (left <= 1) then()
    }, 1000)
    return () => clearTimeout(timer)
  }, [left, then])
  return then ? left : undefined
}

interface NoticeProps {
  readonly failure: Failure
  readonly onRetry?: (() => void) | undefined
  readonly onForget?: (() => void) | undefined
  /** When what is still shown was loaded. */
  readonly shownAt?: number | undefined
}

export const Notice = ({ failure, onRetry, onForget, shownAt }: NoticeProps) => {
  const { kind, message, status, requestId } = failure
  const isOfKey = status === 401 || status === 403
  const left = useCountdown(failure, onRetry)
  return (
    <div class="notice">
      <p role="alert">
        {message} {ADVICE[kind]}
        {shownAt !== undefined && ` What is shown is from ${clockText(shownAt)}.`}
      </p>
      {left !== undefined && <p>Trying again in {left} s.</p>}
      {kind === 'failed' && requestId && (
        <p class="hint">
          Request <code>{requestId}</code>
        </p>
      )}
      {(onRetry || (onForget && isOfKey)) && (
        <p class="buttons">
          {onRetry && (
            <button type="button" onClick={onRetry}>
              Try again
            </button>
          )}
          {onForget && isOfKey && (
            <button type="button" onClick={onForget}>
              Use another key
            </button>
          )}
        </p>
      )}
    </div>
  )
}
