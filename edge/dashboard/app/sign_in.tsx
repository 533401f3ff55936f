// A key is asked for and tried; a key that will not do is answered in the API's words.
import { useId, useState } from 'preact/hooks'
import { type Failure, get } from './api.ts'
import { Notice } from './notice.tsx'

export const SignIn = ({ onKey }: { onKey: (key: string) => void }) => {
  const id = useId()
  const [text, setText] = useState('')
  const [failure, setFailure] = useState<Failure>()
  const [isBusy, setBusy] = useState(false)
  const submit = async (): Promise<void> => {
    const key = text.trim()
    if (key === '' || isBusy) return
    setBusy(true)
    const tried = await get(key, '/user/balance')
    setBusy(false)
    if (tried.ok) onKey(key)
    else setFailure(tried.error)
  }
  return (
    <main class="sheet sign-in">
      <h1>
        <span class="brand">Sparrow</span> usage
      </h1>
      <form
        onSubmit={(event) => {
          event.preventDefault()
          void submit()
        }}
      >
        <label for={id}>API key</label>
        <div class="field">
          <input
            {...{ id, type: 'password', value: text, placeholder: 'sk-…', required: true, autofocus: true }}
            {...{ autocomplete: 'off', spellcheck: false, 'aria-invalid': failure?.kind === 'refused' }}
            onInput={(event) => setText(event.currentTarget.value)}
          />
          <button type="submit" class="main" disabled={isBusy}>
            {isBusy ? 'Checking…' : 'Show usage'}
          </button>
        </div>
        <p class="hint">Kept in this tab until it is closed or you forget it; sent to this service only.</p>
      </form>
      {failure && <Notice failure={failure} onRetry={failure.kind === 'refused' ? undefined : () => void submit()} />}
    </main>
  )
}
