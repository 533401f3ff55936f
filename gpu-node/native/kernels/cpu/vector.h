// Vectors of SP_WIDTH floats through the compiler's own vector types; the instruction-set files define SP_WIDTH first.
// Everything here has internal linkage: a weak symbol built with AVX-512 must never serve the rest of the program.
#pragma once
#include <stdint.h>

namespace {

typedef float Vec __attribute__((vector_size(SP_WIDTH * 4)));
typedef uint32_t VecU32 __attribute__((vector_size(SP_WIDTH * 4)));
typedef float VecLoad __attribute__((vector_size(SP_WIDTH * 4), aligned(4), may_alias));
typedef uint16_t VecU16 __attribute__((vector_size(SP_WIDTH * 2), aligned(1), may_alias));
typedef uint8_t VecU8 __attribute__((vector_size(SP_WIDTH), aligned(1), may_alias));

#define SP_INLINE static inline __attribute__((always_inline))

SP_INLINE Vec load(const float* p) {
  return *reinterpret_cast<const VecLoad*>(p);
}
SP_INLINE void store(float* p, Vec v) {
  *reinterpret_cast<VecLoad*>(p) = v;
}

SP_INLINE Vec load_bf16(const uint16_t* p) {
  const VecU32 wide = __builtin_convertvector(*reinterpret_cast<const VecU16*>(p), VecU32) << 16;
  return reinterpret_cast<Vec>(wide);
}

/// E4M3 bits moved into fp32's sign, exponent and mantissa are the value times 2^-120, subnormals included.
SP_INLINE Vec load_e4m3(const uint8_t* p) {
  const VecU32 wide = __builtin_convertvector(*reinterpret_cast<const VecU8*>(p), VecU32);
  const VecU32 bits = ((wide & 0x80) << 24) | ((wide & 0x7F) << 20);
  return reinterpret_cast<Vec>(bits) * 0x1p120f;
}

/// Lanes added pairwise, always in the same order.
SP_INLINE float sum_lanes(Vec v) {
  float lanes[SP_WIDTH];
  store(lanes, v);
  for (int width = SP_WIDTH / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

SP_INLINE float bf16_value(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  return __builtin_bit_cast(float, wide);
}
SP_INLINE float e4m3_value(uint8_t code) {
  const uint32_t bits = (static_cast<uint32_t>(code & 0x80) << 24) | (static_cast<uint32_t>(code & 0x7F) << 20);
  return __builtin_bit_cast(float, bits) * 0x1p120f;
}

SP_INLINE float dot(const float* a, const float* b, int64_t n) {
  Vec sum = {};
  int64_t i = 0;
  for (; i + SP_WIDTH <= n; i += SP_WIDTH) sum += load(a + i) * load(b + i);
  float out = sum_lanes(sum);
  for (; i < n; i++) out += a[i] * b[i];
  return out;
}

}  // namespace
