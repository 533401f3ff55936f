// Which page lies in which slot on disk, and which slot goes next: the least recently used one that nothing follows. In
// memory only; no I/O, no lock.
#pragma once
#include <cstdint>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "page_key.h"

namespace sparrow {

class DiskIndex {
 public:
  explicit DiskIndex(int64_t slots) : slots_(slots) {}

  /// -1: not there.
  int64_t find(const PageKey& key) const;

  struct Slot {
    int64_t at = -1;       // -1: none
    bool evicted = false;  // it held a page that is forgotten now
  };
  /// A slot for a page that follows `parent`, which is never the one to go.
  Slot take(const PageKey& parent, bool may_grow = true);
  /// Names what lies in a slot that take() gave, or that was found at the start. False: the key has a slot already.
  bool insert(int64_t slot, const PageKey& key, const PageKey& parent, uint64_t stamp);
  /// Forgets a page; its slot is free.
  void erase(int64_t slot);
  /// Gives back a slot that take() gave.
  void give_back(int64_t slot) { free_.push_back(slot); }

  /// Used now; returns the slot's new stamp.
  uint64_t touch(int64_t slot);
  uint64_t next_stamp() { return next_stamp_++; }

  int64_t used() const { return static_cast<int64_t>(by_key_.size()); }

 private:
  struct Entry {
    PageKey key{}, parent{};
    uint64_t stamp = 0;  // larger: used later
    bool used = false;
  };
  Entry& at(int64_t slot) { return entries_[static_cast<size_t>(slot)]; }
  bool is_leaf(const Entry& e) const { return !followers_.contains(e.key); }

  const int64_t slots_;
  std::vector<Entry> entries_;  // up to the last slot ever used
  std::unordered_map<PageKey, int64_t, PageKeyHash> by_key_;
  std::unordered_map<PageKey, int64_t, PageKeyHash> followers_;  // pages on disk that follow this key, over 0
  std::set<std::pair<uint64_t, int64_t>> leaves_;                // (stamp, slot)
  std::vector<int64_t> free_;
  int64_t untouched_ = 0;  // slots from here on were never used
  uint64_t next_stamp_ = 1;
};

}  // namespace sparrow
