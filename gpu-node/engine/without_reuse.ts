// An engine whose sequences share nothing: each gets a salt of its own, and pages are only found under their salt. A sequence
// that was preempted still finds the pages it has computed itself.
import type { Engine } from './engine.ts'

export const withoutReuse = (engine: Engine): Engine => {
  let sequences = 0
  return {
    info: { ...engine.info, reusesPages: false },
    submit: (spec, onEvents) => engine.submit({ ...spec, cacheSalt: `${spec.cacheSalt}#${sequences++}` }, onEvents),
    stats: () => engine.stats(),
    close: () => engine.close(),
  }
}
