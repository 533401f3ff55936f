// Pages on disk behind a thread of its own: put() copies and returns, get() reads what is right into KV memory and
// tells later. The engine thread never waits for a disk.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "disk_file.h"
#include "disk_index.h"

namespace sparrow {

struct DiskStats {
  int64_t pages = 0, bytes = 0;  // on disk now
  int64_t pending = 0;           // copied, not yet written
  int64_t reads = 0, writes = 0, evictions = 0;
  int64_t corrupt = 0;  // pages that were there but not whole
  int64_t errors = 0;   // writes that the disk refused
};

class DiskTier {
 public:
  /// `on_progress` is called on the tier's thread: reads are done, or there is room again.
  DiskTier(DiskFile file, std::function<void()> on_progress);
  /// Writes what put() took, ends reads without telling.
  ~DiskTier();
  DiskTier(const DiskTier&) = delete;
  DiskTier& operator=(const DiskTier&) = delete;

  /// How many of `keys`, from the first on, are on disk.
  size_t leading(const std::vector<PageKey>& keys) const;

  /// Copies the page, to be written; false when the queue is full, until on_progress. Not written when it is there
  /// already, or when `parent` is not (none: the first page of a chain).
  bool put(const PageKey& key, const std::optional<PageKey>& parent, std::span<const uint8_t> rows,
           std::span<const uint8_t> keys);

  struct Wanted {
    PageKey key;
    std::span<uint8_t> rows, keys;  // untouched by others until the ticket comes back
  };
  void get(uint64_t ticket, std::vector<Wanted> pages);

  struct Done {
    uint64_t ticket;
    size_t whole;  // leading pages that were read and are right
  };
  std::vector<Done> take_done();

  /// Used now, the last page first; which of them are not on disk (nor on their way there).
  std::vector<size_t> touch(const std::vector<PageKey>& keys);

  DiskStats stats() const;

 private:
  struct Put {
    PageKey key, parent;
    bool first;
    std::unique_ptr<uint8_t[]> page;
  };
  struct Get {
    uint64_t ticket;
    std::vector<Wanted> pages;
  };

  void run();
  void read(Get get);
  bool read_one(const Wanted& wanted);
  void write(Put put);
  DiskIndex::Slot reserve(const Put& put);
  void stamp(const std::vector<PageKey>& keys);

  DiskFile file_;
  const size_t queue_max_;
  const std::function<void()> on_progress_;

  mutable std::mutex mutex_;  // guards all below, never held during I/O
  std::condition_variable wake_;
  DiskIndex index_;  // changed by the thread alone
  std::deque<Put> puts_;
  std::unordered_map<PageKey, int, PageKeyHash> on_their_way_;
  std::vector<std::unique_ptr<uint8_t[]>> spare_;
  std::vector<uint8_t> whole_;  // the thread's own: a page as the file has it
  std::deque<Get> gets_;
  std::deque<std::vector<PageKey>> touched_;
  std::vector<Done> done_;
  DiskStats stats_;
  bool refused_put_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace sparrow
