// What the prefix cache did, as Prometheus reads it: pages found in memory and on disk, written, lost and damaged.
import type { Engine } from './engine/engine.ts'
import type { Gauges } from './metrics.ts'

export const cacheCounters = (engine: Engine): Gauges => ({
  sparrow_cache_memory_hits_total: {
    help: 'Pages of admitted prompts found in memory',
    read: () => engine.stats().memoryHits,
  },
  sparrow_cache_disk_hits_total: {
    help: 'Pages of admitted prompts read from disk',
    read: () => engine.stats().diskHits,
  },
  sparrow_cache_evictions_total: { help: 'Cached pages whose memory was reused', read: () => engine.stats().evictions },
  sparrow_disk_writes_total: { help: 'Pages written to disk', read: () => engine.stats().diskWrites },
  sparrow_disk_evictions_total: { help: 'Pages on disk overwritten', read: () => engine.stats().diskEvictions },
  sparrow_disk_corrupt_total: { help: 'Pages on disk that were not whole', read: () => engine.stats().diskCorrupt },
  sparrow_disk_errors_total: { help: 'Writes that the disk refused', read: () => engine.stats().diskErrors },
})

export const cacheGauges = (engine: Engine): Gauges => ({
  sparrow_disk_pages: { help: 'KV pages on disk', read: () => engine.stats().diskPages },
  sparrow_disk_bytes: { help: 'Bytes of KV pages on disk', read: () => engine.stats().diskBytes },
  sparrow_disk_pending: { help: 'Pages not yet written to disk', read: () => engine.stats().diskPending },
})
