// Answers that an isolate works out again and again from the same few texts.

/** `compute`, which must be pure, with its latest answers kept; the oldest of more than `most` go. */
export const remembered = <T>(most: number, compute: (...parts: string[]) => T): ((...parts: string[]) => T) => {
  const known = new Map<string, T>()
  return (...parts) => {
    const name = JSON.stringify(parts)
    const before = known.get(name)
    if (before !== undefined) return before
    const fresh = compute(...parts)
    // What failed is worked out anew: nobody may push out the others with it.
    if (fresh === undefined) return fresh
    known.set(name, fresh)
    for (const oldest of known.keys()) {
      if (known.size <= most) break
      known.delete(oldest)
    }
    return fresh
  }
}
