// A fixed pool of threads for loops of independent items. Which thread runs an item never changes its result.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace sparrow {

class Threads {
 public:
  /// `count` threads in all, the caller included.
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return static_cast<int>(workers_.size()) + 1; }

  /// Runs body(i) for every i in [0, items), on all threads; returns when all are done. Not reentrant.
  void each(int64_t items, const std::function<void(int64_t)>& body);

 private:
  void work();
  void drain();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> round_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<bool> open_{false};  // the current loop may still have items
  std::atomic<int> active_{0};     // workers inside it
  int64_t items_ = 0;
  const std::function<void(int64_t)>* body_ = nullptr;
  std::atomic<bool> stop_{false};
};

}  // namespace sparrow
