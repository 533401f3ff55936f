// What a node says of itself to a supervisor (/livez: restart it?) and to whoever routes to it (/readyz: send it runs?).

/** Why no run should be sent here. */
export type NotReady =
  | 'loading_model'
  | 'draining'
  | 'engine_stuck'
  | 'journal_failed'
  | 'receipts_not_delivered'
  | 'not_registered'

export interface NodeState {
  readonly loading: boolean
  readonly draining: boolean
  readonly stuck: boolean
  readonly journalFailed: boolean
  /** More unacknowledged receipts than the node may have. */
  readonly receiptsWait: boolean
  readonly registered: boolean
}

/** A node before its model is there. */
export const LOADING: NodeState = {
  ...{ loading: true, draining: false, stuck: false, journalFailed: false, receiptsWait: false, registered: false },
}

export interface Readiness {
  readonly ready: boolean
  /** The first is what keeps the others from mattering. */
  readonly reasons: readonly NotReady[]
}

export const readinessOf = (state: NodeState): Readiness => {
  const all: readonly [boolean, NotReady][] = [
    [state.loading, 'loading_model'],
    [state.draining, 'draining'],
    [state.stuck, 'engine_stuck'],
    [state.journalFailed, 'journal_failed'],
    [state.receiptsWait, 'receipts_not_delivered'],
    [!state.registered, 'not_registered'],
  ]
  const reasons = all.filter(([holds]) => holds).map(([, reason]) => reason)
  return { ready: reasons.length === 0, reasons }
}
