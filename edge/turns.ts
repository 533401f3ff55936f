// One thread runs every request of a Worker and its objects. What never waits for the network goes
// on from step to step while the bytes of streams lie in their sockets; so long work gives way in between.

/** Steps of some 0.2 ms that are taken before others have their turn. */
const STEPS = 8

/** Whatever came in meanwhile is served first. Some 10 us when nothing did. */
export const giveWay = (): Promise<void> => new Promise((done) => setTimeout(done, 0))

/** `work` for each, one after another, giving way after every few. */
export const inTurns = async <T, R>(items: readonly T[], work: (item: T) => R | Promise<R>): Promise<R[]> => {
  const done: R[] = []
  for (const item of items) {
    if (done.length > 0 && done.length % STEPS === 0) await giveWay()
    done.push(await work(item))
  }
  return done
}
