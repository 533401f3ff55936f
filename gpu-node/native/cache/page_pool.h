// Owner of all KV pages. A full page is named by what it holds: salt, everything before it, its 64 tokens. Released
// pages stay findable until their memory is needed (least recently used first). take/share/release change counts; match
// reads.
#pragma once
#include <array>
#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>
#include <vector>

#include "../backend.h"

namespace sparrow {

class PagePool {
 public:
  explicit PagePool(int pages);

  /// Pages of the longest cached chain of `tokens` under `salt`, each taken once for the caller. Only whole pages, and
  /// never all of the prompt: at least one token is left to compute.
  std::vector<int32_t> share(const std::string& salt, const std::vector<int32_t>& tokens);

  /// An empty page, evicting the least recently used cached one when none is free. -1 when every page is in use.
  int32_t take();

  /// Makes a full page findable. `previous` is the page before it in the sequence, or -1. A page whose content is
  /// already cached stays private; a chain whose previous page is private stays private too.
  void publish(int32_t page, const std::string& salt, int32_t previous, const int32_t* tokens);

  void release(int32_t page);

  int pages() const { return static_cast<int>(meta_.size()); }
  /// Pages that take() can still hand out.
  int available() const { return static_cast<int>(free_.size() + unused_.size()); }
  int cached() const { return static_cast<int>(unused_.size()); }

  /// Every page is free, cached or in use, exactly once; empty when that holds, else what is wrong.
  std::string check_integrity() const;

 private:
  struct Meta {
    int32_t users = 0;
    bool published = false;
    uint64_t hash = 0, serial = 0, previous_serial = 0;  // a serial names one publication for ever
    std::string salt;
    std::array<int32_t, SP_PAGE_TOKENS> tokens{};
    std::list<int32_t>::iterator unused_at;
  };

  static uint64_t chain_hash(uint64_t previous, const std::string& salt, const int32_t* tokens);
  int32_t find(uint64_t hash, const std::string& salt, uint64_t previous_serial, const int32_t* tokens) const;

  std::vector<Meta> meta_;
  std::vector<int32_t> free_;
  std::list<int32_t> unused_;  // cached, nobody uses them; front is evicted first
  std::unordered_map<uint64_t, int32_t> by_hash_;
  uint64_t next_serial_ = 1;
};

}  // namespace sparrow
