// A new key: the line that makes its first request.
import { useState } from 'preact/hooks'
import { maskedKey } from './session.ts'

const curlLine = (key: string): string =>
  [
    `curl ${location.origin}/v1/chat/completions -H 'Authorization: Bearer ${key}' -H 'Content-Type: application/json'`,
    `-d '{"model":"deepseek-chat","messages":[{"role":"user","content":"What is the capital of France?"}],"temperature":0}'`,
  ].join(' ')

export const Empty = ({ apiKey }: { apiKey: string }) => {
  const [copied, setCopied] = useState<'no' | 'yes' | 'by hand'>('no')
  // Without https there is no clipboard: then the whole line is shown, for the hand.
  const copy = async (): Promise<void> => {
    const done = await navigator.clipboard?.writeText(curlLine(apiKey)).then(
      () => true,
      () => false,
    )
    setCopied(done ? 'yes' : 'by hand')
  }
  return (
    <section class="sheet">
      <h2>Nothing was charged yet</h2>
      <p>Make a first request, then refresh. Its charge is here a moment after its answer.</p>
      <pre>{curlLine(copied === 'by hand' ? apiKey : maskedKey(apiKey))}</pre>
      <p class="buttons">
        <button type="button" class="main" onClick={() => void copy()}>
          Copy with the whole key
        </button>
        <span class="hint" role="status">
          {copied === 'yes'
            ? 'Copied.'
            : copied === 'by hand'
              ? 'Copy it by hand: the line now has your whole key.'
              : ''}
        </span>
      </p>
    </section>
  )
}
