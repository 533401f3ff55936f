// Owner of all KV pages. A full page is named by what it holds (page_key.h). Released pages stay findable until their
// memory is needed: least recently used first, and never one before those that follow it, which could not be found
// without it. Whoever holds a page holds every page before it.
#pragma once
#include <array>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "../backend.h"
#include "page_key.h"

namespace sparrow {

class PagePool {
 public:
  /// remember_fresh: first_fresh() will be asked for what is published.
  explicit PagePool(int pages, bool remember_fresh = false);

  /// Pages of the longest cached chain of `tokens`, each taken once for the caller. Only whole pages, and never all of
  /// the prompt: at least one token is left to compute.
  std::vector<int32_t> share(KeyChain& keys, const std::vector<int32_t>& tokens);

  /// An empty page, evicting the least recently used cached one when none is free. -1 when every page is in use.
  int32_t take();

  /// Makes a full page findable; returns the page to hold from now on. `previous` is the page before it in the
  /// sequence, or -1. Where the same content is cached already, that page takes this one's place, and this one is free.
  int32_t publish(int32_t page, const PageKey& key, int32_t previous, const int32_t* tokens, bool from_disk = false);

  void release(int32_t page);
  /// Last page first, so that the roots of shared prefixes are evicted last.
  void release_all(std::vector<int32_t>& pages);

  int pages() const { return static_cast<int>(meta_.size()); }
  /// Pages that take() can still hand out.
  int available() const { return static_cast<int>(free_.size() + unused_.size()); }
  int cached() const { return static_cast<int>(unused_.size()); }
  int64_t evictions() const { return evictions_; }

  struct Hits {
    int64_t memory = 0, disk = 0;
  };
  /// Where these pages came from; one read from disk counts as such once, and as memory ever after.
  Hits count_hits(const std::vector<int32_t>& pages);

  struct Fresh {
    int32_t page;
    PageKey key;
    std::optional<PageKey> parent;  // none: the first page of its chain
  };
  /// The next page that was published and still is, in order, until told() passes it.
  std::optional<Fresh> first_fresh() const;
  void told();
  /// Lines up a published page once more.
  void renew(int32_t page);
  size_t fresh() const { return fresh_.size(); }

  const PageKey& key_of(int32_t page) const { return meta_[static_cast<size_t>(page)].key; }

  /// Every page is free, cached or in use, exactly once, and no cached page lacks the one before it; empty when that
  /// holds, else what is wrong.
  std::string check_integrity() const;

 private:
  struct Meta {
    int32_t users = 0;
    bool published = false, from_disk = false, is_fresh = false;
    int32_t parent = -1, children = 0;  // published pages: the one before, how many follow
    PageKey key{};
    std::array<int32_t, SP_PAGE_TOKENS> tokens{};
    std::list<int32_t>::iterator unused_at, fresh_at;
  };

  Meta& at(int32_t page) { return meta_[static_cast<size_t>(page)]; }
  int32_t find(const PageKey& key, int32_t previous, const int32_t* tokens) const;
  void hold(int32_t page);
  void evict(int32_t page);

  std::vector<Meta> meta_;
  std::vector<int32_t> free_;
  std::list<int32_t> unused_;  // cached, nobody uses them; front was used longest ago
  std::list<int32_t> fresh_;
  bool remember_fresh_;
  int64_t evictions_ = 0;
  std::unordered_map<PageKey, int32_t, PageKeyHash> by_key_;
};

}  // namespace sparrow
