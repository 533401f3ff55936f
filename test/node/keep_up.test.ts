// What dies is started again, with pauses that grow; how long a fault may last is told without waiting for it.
import { expect, test } from 'vitest'
import { keepUp, PAUSES } from '../../scripts/keep_up.ts'
import { StackError } from '../../scripts/stack.ts'

/** A stack on a clock of its own that fails at `at`, and whose restarts fail at the times that `isBroken` names. */
const stackThat = (at: readonly number[], isBroken: (now: number) => boolean) => {
  const stack = { now: 0, tries: [] as number[], said: [] as string[], outlived: () => {} }
  const failures = [...at]
  const failed = async () => {
    const next = failures.shift()
    if (next === undefined) {
      stack.outlived()
      return new Promise<never>(() => {})
    }
    stack.now = Math.max(stack.now, next)
    return { what: 'node' as const, log: 'node.log' }
  }
  const restart = async () => {
    stack.tries.push(stack.now)
    if (isBroken(stack.now)) throw new StackError('the node did not start; see node.log')
  }
  const options = {
    pauses: PAUSES,
    say: (text: string) => stack.said.push(text),
    isStopped: () => false,
    now: () => stack.now,
    pause: async (ms: number) => {
      stack.now += ms
    },
  }
  const outlived = new Promise<string>((done) => {
    stack.outlived = () => done('outlived')
  })
  return Object.assign(stack, { ended: Promise.race([keepUp({ failed, restart }, options), outlived]) })
}

test('a child that fails at once while a fault lasts for 40 seconds is up again behind it', async () => {
  const stack = stackThat([0], (now) => now < 40_000)
  expect(await stack.ended).toBe('outlived')
  expect(stack.tries).toEqual([0, 1_000, 4_000, 14_000, 44_000])
  expect(stack.said.at(-1)).toBe('the node is back')
})

test('a fault that stays ends with one line that names the log', async () => {
  const stack = stackThat([0], () => true)
  expect(await stack.ended).toBe('the node does not stay up; see node.log')
  expect(stack.tries).toHaveLength(5)
  expect(stack.said.filter((text) => /trying again in \d+ s/.test(text))).toHaveLength(4)
})

test('a child that comes back and dies again is waited for longer each time, within ten minutes', async () => {
  const minutes = (n: number) => n * 60_000
  const stack = stackThat([0, 1, 2, 3, 4, 5].map(minutes), () => false)
  expect(await stack.ended).toBe('the node does not stay up; see node.log')
  const calm = stackThat([0, 11, 22, 33, 44, 55, 66].map(minutes), () => false)
  expect(await calm.ended).toBe('outlived')
  expect(calm.tries).toEqual([0, 11, 22, 33, 44, 55, 66].map(minutes))
})
