// Stored numbers to float, one at a time: the obvious form of what the kernels do in lanes.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../backend.h"

namespace sparrow {

inline float bf16_to_float(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float out;
  std::memcpy(&out, &wide, 4);
  return out;
}

/// OCP E4M3 "fn": bias 7, no infinities, NaN only 0x7F and 0xFF, largest 448, smallest 2^-9.
inline float e4m3_to_float(uint8_t code) {
  const int exponent = (code >> 3) & 15, mantissa = code & 7;
  if ((code & 0x7F) == 0x7F) return std::nanf("");
  const float magnitude = exponent ? std::ldexp(1.0f + static_cast<float>(mantissa) / 8, exponent - 7)
                                   : std::ldexp(static_cast<float>(mantissa), -9);
  return code & 0x80 ? -magnitude : magnitude;
}

/// Element (row, col), scale applied.
inline double weight_at(const SpMatrix& w, int64_t row, int64_t col) {
  const int64_t at = row * w.cols + col;
  if (w.dtype == SP_I8 || w.dtype == SP_I4) {
    const int64_t groups = (w.cols + w.group - 1) / w.group;
    const uint8_t* bytes = static_cast<const uint8_t*>(w.data);
    const int code = w.dtype == SP_I8 ? static_cast<const int8_t*>(w.data)[at]
                                      : ((bytes[row * ((w.cols + 1) / 2) + col / 2] >> (col % 2 * 4)) & 15) - 8;
    return static_cast<double>(w.scale[row * groups + col / w.group]) * code;
  }
  if (w.dtype == SP_BF16) return bf16_to_float(static_cast<const uint16_t*>(w.data)[at]);
  if (w.dtype == SP_F32) return static_cast<const float*>(w.data)[at];
  const int64_t blocks = (w.cols + SP_SCALE_BLOCK - 1) / SP_SCALE_BLOCK;
  return static_cast<double>(e4m3_to_float(static_cast<const uint8_t*>(w.data)[at])) *
         static_cast<double>(w.scale[row / SP_SCALE_BLOCK * blocks + col / SP_SCALE_BLOCK]);
}

// Pages of fp32, as every backend but the BF16 one lays them out: rows are latent (64, latent), rope (64, rope); keys
// are (64, index).
inline int64_t float_row_bytes(int32_t latent, int32_t rope) {
  return int64_t{SP_PAGE_TOKENS} * (int64_t{latent} + rope) * 4;
}
inline int64_t float_key_bytes(int32_t index) {
  return int64_t{SP_PAGE_TOKENS} * index * 4;
}
inline float* page_of(const SpPages& pages, const int32_t* table, int64_t position) {
  return reinterpret_cast<float*>(pages.base + pages.page_stride * table[position / SP_PAGE_TOKENS]);
}
inline float* latent_row(const SpPages& pages, const int32_t* table, int64_t position) {
  return page_of(pages, table, position) + position % SP_PAGE_TOKENS * pages.latent;
}
inline float* rope_row(const SpPages& pages, const int32_t* table, int64_t position) {
  return page_of(pages, table, position) + SP_PAGE_TOKENS * pages.latent + position % SP_PAGE_TOKENS * pages.rope;
}
inline float* index_row(const SpPages& pages, const int32_t* table, int64_t position) {
  return reinterpret_cast<float*>(pages.keys + pages.key_stride * table[position / SP_PAGE_TOKENS]) +
         position % SP_PAGE_TOKENS * pages.index;
}

}  // namespace sparrow
