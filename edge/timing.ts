// Stages of a request, for `Server-Timing`. In Workers the clock moves only across I/O, which is what matters here.

export interface Timing {
  /** Time of `work`, under `stage`. */
  run<T>(stage: string, work: () => Promise<T>): Promise<T>
  header(): string
}

export const timing = (): Timing => {
  const stages: string[] = []
  return {
    run: async (stage, work) => {
      const start = performance.now()
      try {
        return await work()
      } finally {
        stages.push(`${stage};dur=${(performance.now() - start).toFixed(1)}`)
      }
    },
    header: () => stages.join(', '),
  }
}
