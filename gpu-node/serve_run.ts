// One verified request from its arrival to its receipt: what can be refused is refused, then it has a place, its prompts are encoded, and
// its generation runs.
import { apiError, ok, type Result } from '../schema/errors.ts'
import { choicesOf, promptsOf } from '../schema/prompts.ts'
import type { RunRequest } from '../schema/wire.ts'
import type { Answer } from './answer.ts'
import { Generation, type Workshop } from './generate.ts'
import type { GrammarSession } from './grammar.ts'
import { encoded, prepare, tooLong } from './prepare.ts'
import { promptGroups } from './prompt_group.ts'
import { RunClock } from './run_clock.ts'

/** `live` holds the run while it lasts. Error: refused before any work. */
export const serveRun = async (
  shop: Workshop,
  request: RunRequest,
  answer: Answer,
  live: Set<Generation>,
): Promise<Result<void>> => {
  const prepared = prepare(request, shop)
  if (!prepared.ok) return prepared
  const clock = new RunClock()
  const place = shop.admission.enter(request.accountId)
  if (!place.ok) return place
  const grammars: GrammarSession[] = []
  try {
    const { grammar } = request.run
    const choices = choicesOf(request.run)
    const [prompts, opened] = await Promise.all([
      Promise.all(promptsOf(request.run).map((prompt) => encoded(prompt, shop.tokenizer, request.cacheSalt))),
      Promise.all(grammar ? Array.from({ length: choices }, () => shop.grammars.open(grammar)) : []),
    ])
    for (const session of opened) if (session.ok) grammars.push(session.value)
    const refused = opened.find((session) => !session.ok)
    if (refused?.ok === false) return refused
    const { contextLength } = shop.engine.info
    const longest = Math.max(...prompts.map(({ ids }) => ids.length))
    if (longest + 1 > contextLength) return { ok: false, error: tooLong(contextLength, String(longest)) }
    if (answer.gone) return ok(undefined)
    // What was still being read when the time to drain ran out never began.
    if (shop.admission.closed) return { ok: false, error: apiError('node_draining', { retryAfterSeconds: 1 }) }
    const groups = promptGroups(request.run, prompts)
    const generation = new Generation(shop, request, groups, answer, place.value, prepared.value, grammars, clock)
    live.add(generation)
    try {
      return await generation.run()
    } finally {
      live.delete(generation)
    }
  } finally {
    for (const session of grammars) session.close()
    place.value.leave()
  }
}
