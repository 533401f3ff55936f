// The newest page of requests put before those that are shown.
import type { UsageList } from '../../../schema/public_answers.ts'

type Page = Pick<UsageList, 'data' | 'has_more'>

/** Where the two do not meet, requests in between are not known: only the new page is left. */
export const mergePages = (newest: Page, shown: Page | undefined): Page => {
  const ids = new Set(newest.data.map(({ request_id }) => request_id))
  const older = shown?.data.filter(({ request_id }) => !ids.has(request_id)) ?? []
  const meet = shown?.data.some(({ request_id }) => ids.has(request_id)) ?? false
  return meet && shown ? { data: [...newest.data, ...older], has_more: shown.has_more } : newest
}
