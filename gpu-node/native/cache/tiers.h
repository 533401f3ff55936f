// What the engine thread does between memory and disk: a prompt's pages are read before it is admitted and become
// cached pages like any other; what is published is handed to the disk's thread.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "../model/model.h"
#include "disk_tier.h"
#include "page_pool.h"

namespace sparrow {

/// How far a waiting sequence is with asking the disk.
struct Fetch {
  bool asked = false;
  uint64_t ticket = 0;  // 0: waits for nothing
};

class CacheTiers {
 public:
  /// `disk` may be null: memory is all there is then.
  CacheTiers(PagePool& pool, const KvMemory& kv, std::unique_ptr<DiskTier> disk)
      : pool_(pool), kv_(kv), disk_(std::move(disk)) {}
  /// Hands over what was published and not yet written, for some seconds at most.
  ~CacheTiers();

  /// Whether pages of a waiting prompt are on their way from disk. The first call asks for those that memory lacks, if
  /// `spare` pages may be taken for them.
  bool fetching(Fetch& fetch, KeyChain& keys, const std::vector<int32_t>& tokens, int64_t spare);

  /// Whether what it asked for is still on its way.
  bool on_its_way(const Fetch& fetch) const { return fetch.ticket && loads_.contains(fetch.ticket); }

  /// Whether pages are held for what is on its way.
  bool loading() const { return !loads_.empty(); }

  /// Between steps: what has been read becomes cached, what was published goes to the disk.
  void pump();

  /// A sequence was admitted with these pages.
  void count(KeyChain& keys, const std::vector<int32_t>& tokens, const std::vector<int32_t>& pages);

  const PagePool::Hits& hits() const { return hits_; }
  DiskStats stats() const;

 private:
  struct Load {
    std::vector<int32_t> held;  // pages in memory before them, then those to be read
    size_t shared = 0;          // of the first kind
    std::vector<PageKey> keys;  // of those to be read
    std::vector<int32_t> tokens;
  };

  void start(Fetch& fetch, const std::vector<int32_t>& tokens, std::vector<int32_t> shared,
             std::vector<PageKey> missing);
  void finish(const DiskTier::Done& done);
  void save();

  PagePool& pool_;
  const KvMemory& kv_;
  std::unordered_map<uint64_t, Load> loads_;
  std::unordered_map<PageKey, uint64_t, PageKeyHash> arriving_;  // first page of each load
  uint64_t next_ticket_ = 1;
  PagePool::Hits hits_;
  std::unique_ptr<DiskTier> disk_;
};

}  // namespace sparrow
