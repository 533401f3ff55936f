// Workers spin briefly for the next loop, since a model step is a train of short loops, then sleep.
#include "threads.h"

namespace sparrow {
namespace {
constexpr int kSpins = 4000;
}

Threads::Threads(int count) {
  for (int i = 1; i < count; i++) workers_.emplace_back([this] { work(); });
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

void Threads::drain() {
  for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < items_;) call_(context_, i);
}

void Threads::work() {
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
    if (open_.load()) drain();
    active_.fetch_sub(1);
  }
}

void Threads::run(int64_t items, Call call, const void* context) {
  if (items <= 1 || workers_.empty()) {
    for (int64_t i = 0; i < items; i++) call(context, i);
    return;
  }
  items_ = items;
  call_ = call;
  context_ = context;
  next_.store(0);
  open_.store(true);
  round_.fetch_add(1);
  if (sleepers_.load() > 0) {
    { std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  drain();
  // A worker that has not begun by now is not waited for: on a busy machine it may be asleep for long.
  open_.store(false);
  while (active_.load() != 0) __builtin_ia32_pause();
}

}  // namespace sparrow
