// The queue of a node: its bound, an account's part of it, what Retry-After says, and who drains.
import { expect, test } from 'vitest'
import { Admission, type Place } from '../../gpu-node/admission.ts'

const placeOf = (admission: Admission, account: string): Place => {
  const place = admission.enter(account)
  if (!place.ok) throw new Error(place.error.message)
  return place.value
}

const refusal = (admission: Admission, account: string) => {
  const place = admission.enter(account)
  return place.ok ? undefined : place.error
}

test('one account fills its part of the queue, the others still get in, and the whole is bounded', () => {
  const admission = new Admission(4, 0.5)
  const places = [placeOf(admission, 'a'), placeOf(admission, 'a')]
  expect(refusal(admission, 'a')).toMatchObject({ code: 'no_node' })
  expect(refusal(admission, 'a')?.message).toContain('2 requests of this account')
  places.push(placeOf(admission, 'b'), placeOf(admission, 'c'))
  expect(refusal(admission, 'd')?.message).toContain('4 requests wait')
  places[0]?.started()
  expect([admission.waiting, admission.running]).toEqual([3, 1])
  placeOf(admission, 'a').leave()
  for (const place of places) {
    place.leave()
    place.leave()
  }
  expect([admission.waiting, admission.running]).toEqual([0, 0])
  placeOf(admission, 'a')
  placeOf(admission, 'a')
  expect(refusal(admission, 'a')).toBeDefined()
})

test('a run of several prompts, each of which begins, has one place', () => {
  const admission = new Admission(4, 1)
  const places = [placeOf(admission, 'a'), placeOf(admission, 'a')]
  for (let i = 0; i < 3; i++) places[0]?.started()
  expect([admission.waiting, admission.running]).toEqual([1, 1])
})

test('the share of an account is at least one place', () => {
  const admission = new Admission(1, 0.01)
  placeOf(admission, 'a')
  expect(refusal(admission, 'b')).toBeDefined()
})

test('Retry-After grows with the queue and falls when it moves fast', () => {
  /** Of a queue of `many`, of which `started` began before, `apart` milliseconds from one to the next. */
  const retryAfter = (many: number, started: number, apart: number, waits: boolean): number => {
    let now = 0
    const admission = new Admission(Math.max(many, started), 1, () => now)
    const places: Place[] = waits ? Array.from({ length: started }, () => placeOf(admission, 'a')) : []
    for (let i = 0; i < started; i++) {
      now += apart
      const place = places[i] ?? placeOf(admission, 'a')
      place.started()
      place.leave()
    }
    while (admission.waiting < Math.max(many, started)) placeOf(admission, 'a')
    return refusal(admission, 'a')?.retryAfterSeconds ?? 0
  }
  expect(retryAfter(20, 0, 0, true)).toBe(20)
  expect(retryAfter(500, 0, 0, true)).toBe(60)
  expect(retryAfter(20, 20, 10, true)).toBe(1)
  expect(retryAfter(20, 20, 2500, true)).toBeGreaterThan(40)
  // How seldom runs come says nothing about how fast a queue moves.
  expect(retryAfter(20, 20, 20_000, false)).toBe(20)
})

test('a node that drains takes nobody in, and is idle once its queue is empty, too', async () => {
  const admission = new Admission(4, 1)
  const place = placeOf(admission, 'a')
  admission.drain()
  expect(refusal(admission, 'b')).toMatchObject({ code: 'node_draining', retryAfterSeconds: 1 })
  expect(await admission.idle(5)).toBe(false)
  const idle = admission.idle(10_000)
  place.leave()
  expect(await idle).toBe(true)
})
