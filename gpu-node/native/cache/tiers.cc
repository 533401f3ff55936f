// Pages come from disk into the pool, not into a sequence: admission finds them there and counts them as it always
// does.
#include "tiers.h"

#include <algorithm>
#include <chrono>

namespace sparrow {
namespace {
constexpr std::chrono::seconds kLastWrites{5};
}  // namespace

CacheTiers::~CacheTiers() {
  const auto until = std::chrono::steady_clock::now() + kLastWrites;
  while (disk_ && pool_.fresh() > 0 && std::chrono::steady_clock::now() < until) {
    save();
    if (pool_.fresh() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

bool CacheTiers::fetching(Fetch& fetch, KeyChain& keys, const std::vector<int32_t>& tokens, int64_t spare) {
  if (on_its_way(fetch)) return true;
  fetch.ticket = 0;
  if (!disk_ || fetch.asked) return false;
  std::vector<int32_t> shared = pool_.share(keys, tokens);
  std::vector<PageKey> missing;
  for (size_t p = shared.size(); (p + 1) * SP_PAGE_TOKENS < tokens.size(); p++) missing.push_back(keys.at(p, tokens));
  missing.resize(disk_->leading(missing));
  // Sharing took pages that nobody used from what is spare. Where there is no room for all, there is none to run
  // either.
  const int64_t room = std::min<int64_t>(spare - static_cast<int64_t>(shared.size()), pool_.available());
  if (static_cast<int64_t>(missing.size()) > room) {
    pool_.release_all(shared);
    return false;
  }
  const auto other = missing.empty() ? arriving_.end() : arriving_.find(missing[0]);
  if (other != arriving_.end()) {
    fetch.ticket = other->second;
    pool_.release_all(shared);
    return true;
  }
  fetch.asked = true;
  if (missing.empty())
    pool_.release_all(shared);
  else
    start(fetch, tokens, std::move(shared), std::move(missing));
  return fetch.ticket != 0;
}

void CacheTiers::start(Fetch& fetch, const std::vector<int32_t>& tokens, std::vector<int32_t> shared,
                       std::vector<PageKey> missing) {
  Load load;
  load.shared = shared.size();
  load.held = std::move(shared);
  std::vector<DiskTier::Wanted> wanted;
  for (const PageKey& key : missing) {
    load.held.push_back(pool_.take());
    wanted.push_back({key, kv_.rows_of(load.held.back()), kv_.keys_of(load.held.back())});
  }
  load.keys = std::move(missing);
  load.tokens.assign(tokens.begin(), tokens.begin() + static_cast<int64_t>(load.held.size()) * SP_PAGE_TOKENS);
  fetch.ticket = next_ticket_++;
  arriving_.emplace(load.keys[0], fetch.ticket);
  loads_.emplace(fetch.ticket, std::move(load));
  disk_->get(fetch.ticket, std::move(wanted));
}

void CacheTiers::finish(const DiskTier::Done& done) {
  const auto found = loads_.find(done.ticket);
  Load& load = found->second;
  for (size_t i = 0; i < done.whole; i++) {
    const size_t p = load.shared + i;
    load.held[p] = pool_.publish(load.held[p], load.keys[i], p ? load.held[p - 1] : -1,
                                 load.tokens.data() + p * SP_PAGE_TOKENS, true);
  }
  pool_.release_all(load.held);
  arriving_.erase(load.keys[0]);
  loads_.erase(found);
}

void CacheTiers::save() {
  while (const auto next = pool_.first_fresh()) {
    if (!disk_->put(next->key, next->parent, kv_.rows_of(next->page), kv_.keys_of(next->page))) return;
    pool_.told();
  }
}

void CacheTiers::pump() {
  if (!disk_) return;
  for (const DiskTier::Done& done : disk_->take_done()) finish(done);
  save();
}

void CacheTiers::count(KeyChain& keys, const std::vector<int32_t>& tokens, const std::vector<int32_t>& pages) {
  const PagePool::Hits hits = pool_.count_hits(pages);
  hits_.memory += hits.memory;
  hits_.disk += hits.disk;
  if (!disk_ || pages.empty()) return;
  std::vector<PageKey> used;
  for (size_t p = 0; p < pages.size(); p++) used.push_back(keys.at(p, tokens));
  for (const size_t p : disk_->touch(used)) pool_.renew(pages[p]);
}

DiskStats CacheTiers::stats() const {
  return disk_ ? disk_->stats() : DiskStats{};
}

}  // namespace sparrow
