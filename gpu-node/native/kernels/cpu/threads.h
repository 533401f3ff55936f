// A fixed pool of threads for loops of independent items. Which thread runs an item never changes its result. Each
// thread has a stretch of its own, so that it reads weights as one stream, and then takes from the ends of the others'.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
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

  /// Runs body(i) for every i in [0, items), items < 2^32, on all threads; returns when all are done. Not reentrant.
  template <class Body>
  void each(int64_t items, const Body& body) {
    run(
        items, [](const void* context, int64_t i) { (*static_cast<const Body*>(context))(i); }, &body);
  }
  using Call = void (*)(const void* context, int64_t item);
  void run(int64_t items, Call call, const void* context);

 private:
  void work(int self);
  void drain(int self);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> round_{0};
  std::atomic<int> sleepers_{0};
  struct alignas(64) Stretch {
    std::atomic<uint64_t> items{0};  // first << 32 | end
  };
  std::unique_ptr<Stretch[]> stretches_;       // one a thread
  alignas(64) std::atomic<bool> open_{false};  // the current loop may still have items
  std::atomic<int> active_{0};                 // workers inside it
  Call call_ = nullptr;
  const void* context_ = nullptr;
  std::atomic<bool> stop_{false};
};

}  // namespace sparrow
