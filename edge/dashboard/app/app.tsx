// Signed in or not: the key is the session.
import { useState } from 'preact/hooks'
import { Overview } from './overview.tsx'
import { storedKey, storeKey } from './session.ts'
import { SignIn } from './sign_in.tsx'

export const App = () => {
  const [key, setKey] = useState(storedKey)
  const use = (next: string | undefined): void => {
    storeKey(next)
    setKey(next)
  }
  return key === undefined ? (
    <SignIn onKey={use} />
  ) : (
    <Overview key={key} apiKey={key} onForget={() => use(undefined)} />
  )
}
