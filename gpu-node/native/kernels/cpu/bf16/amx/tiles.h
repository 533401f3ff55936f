// The eight tile registers of AMX: 16 rows of 64 bytes each. 0 to 3 hold sums, 4 and 5 the left factor (a row each
// token, head or key), 6 and 7 the right one, packed as weights and index keys are. A sum's row depends on no other
// row. Instructions are written out: GCC's own do not say that they read memory.
#pragma once
#include <immintrin.h>
#include <stdint.h>

/// Products of `rows` rows, `bytes` bytes of each, from now on; clears the registers where that changes something.
void sp_shape_tiles(int32_t rows, int32_t bytes);

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

constexpr int32_t kTileRows = 16, kTileBytes = 64;

template <int T>
SP_INLINE void clear_tile() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(T));
}
/// Rows lie `stride` bytes apart.
template <int T>
SP_INLINE void load_tile(const void* from, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
SP_INLINE void store_tile(void* to, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
}
/// C += A B of BF16: for each row and column the even products add up, and the odd ones, and then both are added to C.
template <int C, int A, int B>
SP_INLINE void add_bf16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
/// The same of int8 and uint8, exact.
template <int C, int A, int B>
SP_INLINE void add_codes() {
  __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

}  // namespace
