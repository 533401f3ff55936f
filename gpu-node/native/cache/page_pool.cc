// A hash only finds a candidate; tokens, salt and the chain's serials decide, so a collision can never share a wrong
// page.
#include "page_pool.h"

#include <algorithm>
#include <functional>

namespace sparrow {

PagePool::PagePool(int pages) : meta_(static_cast<size_t>(pages)) {
  for (int32_t p = pages - 1; p >= 0; p--) free_.push_back(p);
}

uint64_t PagePool::chain_hash(uint64_t previous, const std::string& salt, const int32_t* tokens) {
  uint64_t h = previous ? previous : std::hash<std::string>{}(salt) | 1;
  for (int i = 0; i < SP_PAGE_TOKENS; i++) {
    h ^= static_cast<uint32_t>(tokens[i]);
    h *= 0x9E3779B97F4A7C15ull;
    h ^= h >> 29;
  }
  return h;
}

int32_t PagePool::find(uint64_t hash, const std::string& salt, uint64_t previous_serial, const int32_t* tokens) const {
  const auto found = by_hash_.find(hash);
  if (found == by_hash_.end()) return -1;
  const Meta& m = meta_[static_cast<size_t>(found->second)];
  const bool same =
      m.previous_serial == previous_serial && m.salt == salt && std::equal(m.tokens.begin(), m.tokens.end(), tokens);
  return same ? found->second : -1;
}

std::vector<int32_t> PagePool::share(const std::string& salt, const std::vector<int32_t>& tokens) {
  std::vector<int32_t> out;
  uint64_t hash = 0, serial = 0;
  for (size_t at = 0; at + SP_PAGE_TOKENS < tokens.size(); at += SP_PAGE_TOKENS) {
    hash = chain_hash(hash, salt, tokens.data() + at);
    const int32_t page = find(hash, salt, serial, tokens.data() + at);
    if (page < 0) break;
    Meta& m = meta_[static_cast<size_t>(page)];
    if (m.users++ == 0) unused_.erase(m.unused_at);
    serial = m.serial;
    out.push_back(page);
  }
  return out;
}

int32_t PagePool::take() {
  int32_t page = -1;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else if (!unused_.empty()) {
    page = unused_.front();
    unused_.pop_front();
    by_hash_.erase(meta_[static_cast<size_t>(page)].hash);
  } else {
    return -1;
  }
  meta_[static_cast<size_t>(page)] = Meta{};
  meta_[static_cast<size_t>(page)].users = 1;
  return page;
}

void PagePool::publish(int32_t page, const std::string& salt, int32_t previous, const int32_t* tokens) {
  Meta& m = meta_[static_cast<size_t>(page)];
  const Meta* before = previous < 0 ? nullptr : &meta_[static_cast<size_t>(previous)];
  if (m.published || (before && !before->published)) return;
  const uint64_t hash = chain_hash(before ? before->hash : 0, salt, tokens);
  if (!by_hash_.emplace(hash, page).second) return;
  m.published = true;
  m.hash = hash;
  m.serial = next_serial_++;
  m.previous_serial = before ? before->serial : 0;
  m.salt = salt;
  std::copy_n(tokens, SP_PAGE_TOKENS, m.tokens.begin());
}

void PagePool::release(int32_t page) {
  Meta& m = meta_[static_cast<size_t>(page)];
  if (--m.users > 0) return;
  if (m.published)
    m.unused_at = unused_.insert(unused_.end(), page);
  else
    free_.push_back(page);
}

std::string PagePool::check_integrity() const {
  std::vector<int> seen(meta_.size());
  for (int32_t p : free_) seen[static_cast<size_t>(p)]++;
  for (int32_t p : unused_) seen[static_cast<size_t>(p)]++;
  size_t published = 0;
  for (size_t p = 0; p < meta_.size(); p++) {
    published += meta_[p].published;
    if (meta_[p].users < 0) return "page " + std::to_string(p) + " was released too often";
    if (seen[p] + (meta_[p].users > 0) != 1)
      return "page " + std::to_string(p) + " is not exactly one of free, cached, in use";
  }
  return published == by_hash_.size() ? ""
                                      : "the index names " + std::to_string(by_hash_.size()) + " pages, " +
                                            std::to_string(published) + " are published";
}

}  // namespace sparrow
