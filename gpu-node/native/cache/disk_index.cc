// Followers are counted by key, present or not, so that a page whose parent was lost is adopted when that comes back.
#include "disk_index.h"

#include <algorithm>

namespace sparrow {

int64_t DiskIndex::find(const PageKey& key) const {
  const auto found = by_key_.find(key);
  return found == by_key_.end() ? -1 : found->second;
}

DiskIndex::Slot DiskIndex::take(const PageKey& parent, bool may_grow) {
  if (!free_.empty()) {
    const int64_t slot = free_.back();
    free_.pop_back();
    return {slot, false};
  }
  while (may_grow && untouched_ < slots_) {
    const int64_t slot = untouched_++;
    if (slot >= static_cast<int64_t>(entries_.size()) || !at(slot).used) return {slot, false};
  }
  const auto leaf =
      std::find_if(leaves_.begin(), leaves_.end(), [&](const auto& l) { return at(l.second).key != parent; });
  if (leaf == leaves_.end()) return {};  // the chain is longer than the disk
  const int64_t slot = leaf->second;
  erase(slot);
  free_.pop_back();
  return {slot, true};
}

bool DiskIndex::insert(int64_t slot, const PageKey& key, const PageKey& parent, uint64_t stamp) {
  if (!by_key_.emplace(key, slot).second) return false;
  next_stamp_ = std::max(next_stamp_, stamp + 1);
  entries_.resize(std::max(entries_.size(), static_cast<size_t>(slot) + 1));
  at(slot) = {key, parent, stamp, true};
  if (followers_[parent]++ == 0) {
    if (const int64_t before = find(parent); before >= 0) leaves_.erase({at(before).stamp, before});
  }
  if (is_leaf(at(slot))) leaves_.emplace(stamp, slot);
  return true;
}

void DiskIndex::erase(int64_t slot) {
  Entry& e = at(slot);
  if (!e.used) return;
  by_key_.erase(e.key);
  leaves_.erase({e.stamp, slot});
  const PageKey parent = e.parent;
  e = Entry{};
  free_.push_back(slot);
  if (--followers_[parent] > 0) return;
  followers_.erase(parent);
  if (const int64_t before = find(parent); before >= 0) leaves_.emplace(at(before).stamp, before);
}

uint64_t DiskIndex::touch(int64_t slot) {
  Entry& e = at(slot);
  const bool leaf = leaves_.erase({e.stamp, slot}) > 0;
  e.stamp = next_stamp();
  if (leaf) leaves_.emplace(e.stamp, slot);
  return e.stamp;
}

}  // namespace sparrow
