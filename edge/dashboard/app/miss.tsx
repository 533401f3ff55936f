// Where a prompt left the path of the account's most similar earlier one.
import type { UsagePrefix } from '../../../schema/public_answers.ts'
import { Notice } from './notice.tsx'
import { countText, When } from './text.tsx'
import { useFetched } from './use_fetched.ts'

const Place = ({ left_at: place, resolution_characters: within }: UsagePrefix) =>
  place && (
    <p>
      They part within {within} characters behind character {countText(place.character)} of turn {place.message + 1} (
      {place.role}).
    </p>
  )

export const Miss = ({ apiKey, requestId }: { apiKey: string; requestId: string }) => {
  const { result, again } = useFetched<UsagePrefix>(apiKey, `/v1/usage/${encodeURIComponent(requestId)}/prefix`)
  if (!result) return <p class="hint">Loading…</p>
  if (!result.ok) return <Notice failure={result.error} onRetry={result.error.kind === 'refused' ? undefined : again} />
  const { note, compared_with: other, shared_characters: shared, prompt_characters: all } = result.value
  return (
    <div class="miss" role="status">
      <p>{note}</p>
      <Place {...result.value} />
      {other && (
        <p class="hint">
          {countText(shared)} of {countText(all)} characters are those of{' '}
          {other.request_id ? <code>{other.request_id}</code> : 'a request with another key of the account'}, made{' '}
          <When at={other.at} />.
        </p>
      )}
    </div>
  )
}
