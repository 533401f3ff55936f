// A plain loop compiled for three levels of x86-64, so that the compiler vectorises it as widely as the machine allows.
#pragma once
#include <type_traits>

namespace sparrow {

template <class Loop>
__attribute__((target("avx512f,avx512dq,avx512vl,fma,prefer-vector-width=512"))) void run_avx512(const Loop& loop) {
  loop(std::true_type{});
}
template <class Loop>
__attribute__((target("avx2,fma"))) void run_avx2(const Loop& loop) {
  loop(std::true_type{});
}

/// Runs `loop`, a lambda of SP_LOOP; its argument says as a constant whether __builtin_fma is one instruction.
template <class Loop>
void run_widest(const Loop& loop) {
  static const bool fma = __builtin_cpu_supports("fma"), avx2 = fma && __builtin_cpu_supports("avx2"),
                    avx512 = fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512vl");
  if (avx512) return run_avx512(loop);
  if (avx2) return run_avx2(loop);
  loop(std::false_type{});
}

}  // namespace sparrow

// By value, since stores through a pointer might change what is captured by reference.
#define SP_LOOP(fused) [=](auto fused) __attribute__((always_inline))
