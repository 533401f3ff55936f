// The machine's own ceilings.
#include <algorithm>
#include <atomic>
#include <chrono>

#include "../huge_buffer.h"
#include "../kernels/cpu/bf16/backend_bf16.h"
#include "../kernels/cpu/bf16/kernels.h"
#include "bench.h"

namespace sparrow {
namespace {

constexpr int64_t kPieces = 32;                    // a thread; the pool hands them out as it does a kernel's panels
constexpr int64_t kPieceBytes = int64_t{4} << 20;  // 128 MB a thread: no cache holds it
constexpr int64_t kPieceSteps = 64 * 1600;         // whole products of tiles, too

template <class Work>
double seconds_of(Threads& threads, const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  threads.each(kPieces * threads.count(), work);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

LimitMeter::LimitMeter(int threads, const std::string& isa)
    : kernels_(bf16_kernels(isa)), threads_(std::make_unique<Threads>(threads)) {
  if (!kernels_) kernels_ = bf16_kernels("auto");
  if (!kernels_) return;
  memory_ = HugeBuffer(static_cast<size_t>(kPieces * kPieceBytes * threads));
  if (memory_.data()) std::fill_n(memory_.data(), memory_.size(), uint8_t{1});
}

Limits LimitMeter::sample() const {
  if (!memory_.data()) return {};
  std::atomic<int64_t> sink{0};  // or the loops would be left out
  const double compute = seconds_of(*threads_, [&](int64_t) { sink += kernels_->limit_bf16(kPieceSteps) > 0; });
  const double read = seconds_of(
      *threads_, [&](int64_t i) { sink += kernels_->limit_read(memory_.data() + i * kPieceBytes, kPieceBytes); });
  return {static_cast<double>(memory_.size()) / read,
          static_cast<double>(kPieces * kPieceSteps * SP_LIMIT_FLOPS * threads_->count()) / compute};
}

}  // namespace sparrow
