// The key: in this tab's session storage and nowhere else, so that closing the tab forgets it.

const NAME = 'sparrow.key'

export const storedKey = (): string | undefined => {
  try {
    return sessionStorage.getItem(NAME) ?? undefined
  } catch {
    return undefined
  }
}

/** Where storage is forbidden the key lasts until the page is left. */
export const storeKey = (key: string | undefined): void => {
  try {
    if (key === undefined) sessionStorage.removeItem(NAME)
    else sessionStorage.setItem(NAME, key)
  } catch {}
}

/** `sk-...abcd`: enough to tell keys apart. */
export const maskedKey = (key: string): string => `${key.slice(0, 3)}…${key.slice(-4)}`
