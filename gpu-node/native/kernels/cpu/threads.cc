// Workers spin briefly for the next loop, since a model step is a train of short loops, then sleep.
#include "threads.h"

#include <algorithm>

namespace sparrow {
namespace {
constexpr int kSpins = 4000;
constexpr uint64_t kFirst = uint64_t{1} << 32;
}  // namespace

Threads::Threads(int count) : stretches_(new Stretch[static_cast<size_t>(std::max(1, count))]) {
  for (int i = 1; i < count; i++) workers_.emplace_back([this, i] { work(i); });
}

Threads::~Threads() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    round_++;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

/// The thread's own items from the front; then the others' from the back.
void Threads::drain(int self) {
  for (int i = 0; i < count(); i++) {
    std::atomic<uint64_t>& items = stretches_[static_cast<size_t>((self + i) % count())].items;
    uint64_t left = items.load(std::memory_order_relaxed);
    while (left / kFirst < left % kFirst) {
      if (!items.compare_exchange_weak(left, i ? left - 1 : left + kFirst, std::memory_order_relaxed)) continue;
      call_(context_, static_cast<int64_t>(i ? left % kFirst - 1 : left / kFirst));
      left = items.load(std::memory_order_relaxed);
    }
  }
}

void Threads::work(int self) {
  uint64_t seen = 0;
  for (;;) {
    for (int i = 0; i < kSpins && round_.load() == seen; i++) __builtin_ia32_pause();
    if (round_.load() == seen) {
      std::unique_lock lock(mutex_);
      sleepers_++;  // before the round is looked at again: whoever starts one looks at this after
      wake_.wait(lock, [&] { return round_.load() != seen; });
      sleepers_--;
    }
    seen = round_.load();
    if (stop_) return;
    active_.fetch_add(1);
    if (open_.load()) drain(self);
    active_.fetch_sub(1);
  }
}

void Threads::run(int64_t items, Call call, const void* context) {
  if (items <= 1 || workers_.empty()) {
    for (int64_t i = 0; i < items; i++) call(context, i);
    return;
  }
  for (int64_t i = 0; i < count(); i++) {
    const auto first = static_cast<uint64_t>(items * i / count()),
               end = static_cast<uint64_t>(items * (i + 1) / count());
    stretches_[static_cast<size_t>(i)].items.store(first * kFirst + end, std::memory_order_relaxed);
  }
  call_ = call;
  context_ = context;
  open_.store(true);
  round_.fetch_add(1);
  if (sleepers_.load() > 0) {
    { std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  drain(0);
  // A worker that has not begun by now is not waited for: on a busy machine it may be asleep for long.
  open_.store(false);
  while (active_.load() != 0) __builtin_ia32_pause();
}

}  // namespace sparrow
