// What this isolate knows of the nodes beyond D1: who failed of late, and what it has sent where. One of each an isolate.
import { Breaker } from './breaker.ts'
import { InFlight } from './in_flight.ts'
import { Pulse } from './pulse.ts'
import { type Candidate, type Demand, route } from './router.ts'

export const breaker = new Breaker()
export const inFlight = new InFlight()
export const pulse = new Pulse()

export const routeNow = (candidates: readonly Candidate[], demand: Demand): Candidate[] => {
  const now = Date.now()
  return route(candidates, demand, {
    now,
    isOpen: (nodeId) => breaker.isOpen(nodeId, now),
    ownLoad: (node) => inFlight.since(node.id, node.heartbeatAt, now),
  })
}
