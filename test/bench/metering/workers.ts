// What `cloudflare:workers` gives the account object outside workerd: a base class that keeps its two arguments.

export class DurableObject<E> {
  readonly ctx: DurableObjectState
  readonly env: E

  constructor(ctx: DurableObjectState, env: E) {
    this.ctx = ctx
    this.env = env
  }
}
