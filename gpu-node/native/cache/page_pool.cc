// A name only finds a candidate; its tokens and the page before it decide, so that a wrong page is never shared even
// were SHA-256 broken.
#include "page_pool.h"

#include <algorithm>
#include <utility>

namespace sparrow {

PagePool::PagePool(int pages, bool remember_fresh)
    : meta_(static_cast<size_t>(pages)), remember_fresh_(remember_fresh) {
  for (int32_t p = pages - 1; p >= 0; p--) free_.push_back(p);
}

int32_t PagePool::find(const PageKey& key, int32_t previous, const int32_t* tokens) const {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return -1;
  const Meta& m = meta_[static_cast<size_t>(found->second)];
  return m.parent == previous && std::equal(m.tokens.begin(), m.tokens.end(), tokens) ? found->second : -1;
}

void PagePool::hold(int32_t page) {
  if (at(page).users++ == 0) unused_.erase(at(page).unused_at);
}

std::vector<int32_t> PagePool::share(KeyChain& keys, const std::vector<int32_t>& tokens) {
  std::vector<int32_t> out;
  for (size_t from = 0; from + SP_PAGE_TOKENS < tokens.size(); from += SP_PAGE_TOKENS) {
    const int32_t previous = out.empty() ? -1 : out.back();
    const int32_t page = find(keys.at(out.size(), tokens), previous, tokens.data() + from);
    if (page < 0) break;
    hold(page);
    out.push_back(page);
  }
  return out;
}

int32_t PagePool::take() {
  if (free_.empty()) {
    // The first is nearly always a leaf, since releases come last page first.
    const auto leaf = std::find_if(unused_.begin(), unused_.end(), [this](int32_t p) { return at(p).children == 0; });
    if (leaf == unused_.end()) return -1;
    evict(*leaf);
  }
  const int32_t page = free_.back();
  free_.pop_back();
  at(page) = Meta{};
  at(page).users = 1;
  return page;
}

void PagePool::evict(int32_t page) {
  Meta& m = at(page);
  unused_.erase(m.unused_at);
  by_key_.erase(m.key);
  if (m.is_fresh) fresh_.erase(m.fresh_at);
  if (m.parent >= 0) at(m.parent).children--;
  m = Meta{};
  free_.push_back(page);
  evictions_++;
}

int32_t PagePool::publish(int32_t page, const PageKey& key, int32_t previous, const int32_t* tokens, bool from_disk) {
  Meta& m = at(page);
  if (m.published || (previous >= 0 && !at(previous).published)) return page;
  const auto [slot, is_new] = by_key_.emplace(key, page);
  if (!is_new) {
    const int32_t other = find(key, previous, tokens);
    if (other < 0) return page;
    hold(other);
    release(page);
    return other;
  }
  m.published = true;
  m.from_disk = from_disk;
  m.parent = previous;
  m.key = key;
  std::copy_n(tokens, SP_PAGE_TOKENS, m.tokens.begin());
  if (previous >= 0) at(previous).children++;
  if (!from_disk) renew(page);
  return page;
}

void PagePool::release(int32_t page) {
  Meta& m = at(page);
  if (--m.users > 0) return;
  if (m.published)
    m.unused_at = unused_.insert(unused_.end(), page);
  else
    free_.push_back(page);
}

void PagePool::release_all(std::vector<int32_t>& pages) {
  for (auto page = pages.rbegin(); page != pages.rend(); page++) release(*page);
  pages.clear();
}

PagePool::Hits PagePool::count_hits(const std::vector<int32_t>& pages) {
  Hits hits;
  for (const int32_t page : pages) (std::exchange(at(page).from_disk, false) ? hits.disk : hits.memory)++;
  return hits;
}

void PagePool::renew(int32_t page) {
  Meta& m = at(page);
  if (!remember_fresh_ || !m.published || m.is_fresh) return;
  m.is_fresh = true;
  m.fresh_at = fresh_.insert(fresh_.end(), page);
}

std::optional<PagePool::Fresh> PagePool::first_fresh() const {
  if (fresh_.empty()) return std::nullopt;
  const Meta& m = meta_[static_cast<size_t>(fresh_.front())];
  Fresh out{fresh_.front(), m.key, std::nullopt};
  if (m.parent >= 0) out.parent = key_of(m.parent);
  return out;
}

void PagePool::told() {
  at(fresh_.front()).is_fresh = false;
  fresh_.pop_front();
}

std::string PagePool::check_integrity() const {
  std::vector<int> seen(meta_.size()), children(meta_.size());
  for (int32_t p : free_) seen[static_cast<size_t>(p)]++;
  for (int32_t p : unused_) seen[static_cast<size_t>(p)]++;
  size_t published = 0, fresh = 0;
  for (size_t p = 0; p < meta_.size(); p++) {
    const Meta& m = meta_[p];
    const std::string name = "page " + std::to_string(p);
    published += m.published;
    fresh += m.is_fresh;
    if (m.users < 0) return name + " was released too often";
    if (seen[p] + (m.users > 0) != 1) return name + " is not exactly one of free, cached, in use";
    if (m.parent < 0) continue;
    const Meta& before = meta_[static_cast<size_t>(m.parent)];
    children[static_cast<size_t>(m.parent)]++;
    if (!before.published || (m.users > 0 && before.users == 0)) return name + " lacks the page before it";
  }
  for (size_t p = 0; p < meta_.size(); p++) {
    if (children[p] != meta_[p].children) return "page " + std::to_string(p) + " miscounts its followers";
  }
  if (fresh != fresh_.size()) return "the fresh pages do not add up";
  return published == by_key_.size() ? ""
                                     : "the index names " + std::to_string(by_key_.size()) + " pages, " +
                                           std::to_string(published) + " are published";
}

}  // namespace sparrow
