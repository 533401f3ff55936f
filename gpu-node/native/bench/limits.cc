// The machine's own ceilings, measured as a kernel would meet them: all threads at once, huge pages, best of five.
#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

#include "../huge_buffer.h"
#include "../kernels/cpu/bf16/backend_bf16.h"
#include "../kernels/cpu/bf16/kernels.h"
#include "bench.h"

namespace sparrow {
namespace {

constexpr size_t kBytes = size_t{256} << 20;
constexpr int64_t kSteps = 20'000'000;

/// Seconds until all threads are done with `work`, the least of five tries.
double together(int threads, const std::function<void(int)>& work) {
  double best = 1e9;
  for (int i = 0; i < 5; i++) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> all;
    for (int t = 1; t < threads; t++) all.emplace_back(work, t);
    work(0);
    for (std::thread& thread : all) thread.join();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace

Limits measure_limits(int threads) {
  Limits out;
  if (!has_avx512bf16()) return out;
  HugeBuffer memory(kBytes * static_cast<size_t>(threads));
  if (!memory.data()) return out;
  std::fill_n(memory.data(), memory.size(), uint8_t{1});
  const double read =
      together(threads, [&](int t) { sp_limit_read(memory.data() + kBytes * static_cast<size_t>(t), kBytes); });
  const double compute = together(threads, [&](int) { sp_limit_bf16(kSteps); });
  out.read_bytes = static_cast<double>(memory.size()) / read;
  out.bf16_flops = static_cast<double>(kSteps) * SP_LIMIT_FLOPS * threads / compute;
  return out;
}

}  // namespace sparrow
