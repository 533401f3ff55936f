// The thread reads first, since somebody waits for it, and writes one page at a time. What was used is noted before the
// next eviction or a second later, so that a hit does not have to share its processors with that.
#include "disk_tier.h"

#include <algorithm>
#include <chrono>

namespace sparrow {
namespace {
constexpr int64_t kQueueBytes = int64_t{64} << 20;
constexpr size_t kQueueLeast = 2;
constexpr std::chrono::seconds kNoteAfter{1};
}  // namespace

DiskTier::DiskTier(DiskFile file, std::function<void()> on_progress)
    : file_(std::move(file)),
      queue_max_(std::max(kQueueLeast, static_cast<size_t>(kQueueBytes / file_.page_bytes()))),
      on_progress_(std::move(on_progress)),
      index_(file_.slots()) {
  stats_.corrupt = file_.scan([this](const DiskFile::Found& f) { index_.insert(f.slot, f.key, f.parent, f.stamp); });
  thread_ = std::thread([this] { run(); });
}

DiskTier::~DiskTier() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

size_t DiskTier::leading(const std::vector<PageKey>& keys) const {
  std::lock_guard lock(mutex_);
  size_t n = 0;
  while (n < keys.size() && index_.find(keys[n]) >= 0) n++;
  return n;
}

bool DiskTier::put(const PageKey& key, const std::optional<PageKey>& parent, std::span<const uint8_t> rows,
                   std::span<const uint8_t> keys) {
  std::unique_ptr<uint8_t[]> copy;
  {
    std::lock_guard lock(mutex_);
    if (on_their_way_.contains(key) || index_.find(key) >= 0) return true;
    if (puts_.size() >= queue_max_) {
      refused_put_ = true;
      return false;
    }
    if (!spare_.empty()) {
      copy = std::move(spare_.back());
      spare_.pop_back();
    }
  }
  if (!copy) copy = std::make_unique_for_overwrite<uint8_t[]>(static_cast<size_t>(file_.page_bytes()));
  std::ranges::copy(keys, std::ranges::copy(rows, copy.get()).out);
  {
    std::lock_guard lock(mutex_);
    on_their_way_[key]++;
    puts_.push_back({key, parent.value_or(PageKey{}), !parent, std::move(copy)});
  }
  wake_.notify_one();
  return true;
}

void DiskTier::get(uint64_t ticket, std::vector<Wanted> pages) {
  {
    std::lock_guard lock(mutex_);
    gets_.push_back({ticket, std::move(pages)});
  }
  wake_.notify_one();
}

std::vector<DiskTier::Done> DiskTier::take_done() {
  std::lock_guard lock(mutex_);
  return std::exchange(done_, {});
}

std::vector<size_t> DiskTier::touch(const std::vector<PageKey>& keys) {
  std::vector<size_t> missing;
  {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < keys.size(); i++)
      if (index_.find(keys[i]) < 0 && !on_their_way_.contains(keys[i])) missing.push_back(i);
    touched_.push_back(keys);
  }
  wake_.notify_one();
  return missing;
}

DiskStats DiskTier::stats() const {
  std::lock_guard lock(mutex_);
  DiskStats out = stats_;
  out.pages = index_.used();
  out.bytes = out.pages * file_.page_bytes();
  out.pending = static_cast<int64_t>(on_their_way_.size());
  return out;
}

void DiskTier::run() {
  std::unique_lock lock(mutex_);
  const auto has_work = [this] { return stop_ || !gets_.empty() || !puts_.empty(); };
  for (;;) {
    wake_.wait(lock, [&] { return has_work() || !touched_.empty(); });
    if (!has_work()) wake_.wait_for(lock, kNoteAfter, has_work);
    if (!stop_ && !gets_.empty()) {
      Get next = std::move(gets_.front());
      gets_.pop_front();
      lock.unlock();
      read(std::move(next));
    } else if (!touched_.empty()) {
      const auto touched = std::exchange(touched_, {});
      lock.unlock();
      for (const std::vector<PageKey>& keys : touched) stamp(keys);
    } else if (!puts_.empty()) {
      Put next = std::move(puts_.front());
      puts_.pop_front();
      lock.unlock();
      write(std::move(next));
    } else if (stop_) {
      return;
    } else {
      continue;
    }
    lock.lock();
  }
}

void DiskTier::read(Get get) {
  Done done{get.ticket, 0};
  std::vector<PageKey> keys;
  for (const Wanted& wanted : get.pages) {
    if (!read_one(wanted)) break;
    keys.push_back(wanted.key);
    done.whole++;
  }
  {
    std::lock_guard lock(mutex_);
    stats_.reads += static_cast<int64_t>(done.whole);
    done_.push_back(done);
  }
  on_progress_();
  stamp(keys);
}

bool DiskTier::read_one(const Wanted& wanted) {
  int64_t slot = -1;
  {
    std::lock_guard lock(mutex_);
    slot = index_.find(wanted.key);
  }
  if (slot < 0) return false;
  whole_.resize(static_cast<size_t>(file_.page_bytes()));
  if (file_.read(slot, wanted.key, whole_.data())) {
    const auto keys = std::ranges::copy_n(whole_.begin(), std::ssize(wanted.rows), wanted.rows.begin()).in;
    std::ranges::copy_n(keys, std::ssize(wanted.keys), wanted.keys.begin());
    return true;
  }
  {
    std::lock_guard lock(mutex_);
    stats_.corrupt++;
    index_.erase(slot);
  }
  file_.clear(slot);
  return false;
}

/// None when the page needs no slot or gets none.
DiskIndex::Slot DiskTier::reserve(const Put& put) {
  const bool may_grow = file_.may_grow();
  std::lock_guard lock(mutex_);
  if (index_.find(put.key) >= 0 || (!put.first && index_.find(put.parent) < 0)) return {};
  const DiskIndex::Slot slot = index_.take(put.parent, may_grow);
  stats_.evictions += slot.evicted;
  return slot;
}

void DiskTier::write(Put put) {
  const DiskIndex::Slot slot = reserve(put);
  const uint64_t stamp = index_.next_stamp();  // read and changed by this thread alone
  const bool written = slot.at >= 0 && file_.write({slot.at, put.key, put.parent, stamp}, put.page.get());
  bool tell = false;
  {
    std::lock_guard lock(mutex_);
    if (written)
      index_.insert(slot.at, put.key, put.parent, stamp);
    else if (slot.at >= 0)
      index_.give_back(slot.at);
    stats_.writes += written;
    stats_.errors += slot.at >= 0 && !written;
    if (auto way = on_their_way_.find(put.key); --way->second == 0) on_their_way_.erase(way);
    spare_.push_back(std::move(put.page));
    tell = refused_put_ && puts_.size() <= queue_max_ / 2;
    if (tell) refused_put_ = false;
  }
  if (tell) on_progress_();
}

/// Last page first, so that the first is evicted last.
void DiskTier::stamp(const std::vector<PageKey>& keys) {
  for (auto key = keys.rbegin(); key != keys.rend(); key++) {
    int64_t slot = -1;
    uint64_t stamp = 0;
    {
      std::lock_guard lock(mutex_);
      slot = index_.find(*key);
      if (slot >= 0) stamp = index_.touch(slot);
    }
    if (slot >= 0) file_.stamp(slot, stamp);
  }
}

}  // namespace sparrow
