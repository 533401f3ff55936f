// How weights lie in memory as the kernels read them: blocks of 16 rows, columns side by side (kernels.h).
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>

#include "../../../backend/decode.h"
#include "pool.h"

namespace sparrow::bf16 {
namespace {

/// F32 weights whose activations may be rounded are rounded too.
bool stays_float(const SpMatrix& w) {
  return w.dtype == SP_F32 && w.exact;
}

bool has_codes(const SpMatrix& w) {
  return w.narrow || w.dtype == SP_I8 || w.dtype == SP_I4 || w.dtype == SP_F8_E4M3;
}

/// FP8 becomes int8 with a multiplier for every row of its 128x128 blocks: less noise than E4M3 itself has, for kernels
/// that are half as fast again.
constexpr int32_t kGroupOfFp8 = SP_SCALE_BLOCK;

int32_t packed_group(const SpMatrix& w) {
  return w.dtype == SP_F8_E4M3 ? kGroupOfFp8 : w.narrow ? SP_STRETCH : w.group;
}

/// Multipliers of a row.
int64_t group_count(const SpMatrix& w) {
  return ceil_div(w.cols, packed_group(w));
}

/// Where the units of two groups and their codes stand in a block.
struct Units {
  explicit Units(const SpMatrix& w) : group(packed_group(w)), column(w.dtype == SP_I4 ? SP_LANES / 2 : SP_LANES) {}
  int64_t group, column;  // columns of one; bytes of the other
  int64_t multiplier(int64_t g, int64_t lane) const {
    return g / 2 * (64 + 2 * group * column) + (g % 2 * SP_LANES + lane) * 2;
  }
  /// Of a column that is a multiple of SP_STRETCH.
  int64_t codes(int64_t c) const { return (c / (2 * group) + 1) * 64 + c * column; }
};

int64_t block_bytes(const SpMatrix& w) {
  if (stays_float(w)) return int64_t{w.cols} * SP_LANES * 4;
  if (!has_codes(w)) return ceil_div(w.cols, 2) * 64;
  return stretched(w.cols) * Units(w).column + ceil_div(group_count(w), 2) * 64;
}

/// Behind the blocks of exact BF16 a byte says whether any number in them is subnormal.
constexpr int64_t kNoteBytes = 64;
bool keeps_note(const SpMatrix& w) {
  return w.exact && !stays_float(w) && !has_codes(w);
}
template <class Byte>
Byte* note_of(const SpMatrix& w, Byte* packed) {
  return packed + w.heads * ceil_div(w.rows / w.heads, SP_LANES) * block_bytes(w);
}
bool has_subnormal(const uint16_t* from, int64_t count) {
  return std::any_of(from, from + count, [](uint16_t v) { return (v & 0x7F80) == 0 && (v & 0x7F) != 0; });
}

/// Row `row` of W as lane `lane` of a block of elements T, `depth` columns side by side.
template <class T>
void pack_row(const T* from, int64_t cols, int64_t lane, int64_t depth, T* block) {
  for (int64_t c = 0; c < cols; c++) block[c / depth * depth * SP_LANES + lane * depth + c % depth] = from[c];
}

/// Where the code of column `c` stands: four columns of 16 rows to a line of 64 bytes, of int4 the next four in its
/// high bits.
uint8_t* code_at(const SpMatrix& w, int64_t c, int64_t lane, uint8_t* block) {
  const int64_t quad = c % SP_STRETCH / 4, line = w.dtype == SP_I4 ? quad / 2 : quad;
  return block + Units(w).codes(c / SP_STRETCH * SP_STRETCH) + line * 64 + lane * 4 + c % 4;
}

/// Codes offset to be unsigned.
void pack_row_codes(const SpMatrix& w, const uint8_t* from, int64_t lane, uint8_t* block) {
  for (int64_t c = 0; c < w.cols; c++) {
    uint8_t* to = code_at(w, c, lane, block);
    if (w.dtype == SP_I8)
      *to = static_cast<uint8_t>(from[c] + 128);
    else
      *to |= static_cast<uint8_t>(((from[c / 2] >> (c % 2 * 4)) & 15) << (c / 4 % 2 * 4));
  }
}

/// Multiplier of a group and lane: BF16, as int8 and int4 checkpoints have them already.
void put_scale(const SpMatrix& w, int64_t group, int64_t lane, float scale, uint8_t* block) {
  std::memcpy(block + Units(w).multiplier(group, lane), reinterpret_cast<const uint8_t*>(&scale) + 2, 2);
}

/// A row of floats as int8.
void pack_row_as_codes(const SpBf16Kernels& k, const SpMatrix& w, const float* row, int64_t lane, uint8_t* block) {
  const int64_t group = packed_group(w);
  for (int64_t g = 0; g < group_count(w); g++) {
    const int64_t end = std::min<int64_t>(w.cols, (g + 1) * group);
    float most = 0;
    for (int64_t c = g * group; c < end; c++) most = std::max(most, std::fabs(row[c]));
    uint16_t half;
    const float wanted = most / 127;
    k.to_bf16(&wanted, 1, 1, &half);
    const float scale = bf16_to_float(half), inverse = scale > 0 ? 1 / scale : 0;
    put_scale(w, g, lane, scale, block);
    for (int64_t c = g * group; c < end; c++) {
      const int code = static_cast<int>(std::lrint(row[c] * inverse));
      *code_at(w, c, lane, block) = static_cast<uint8_t>(std::clamp(code, -127, 127) + 128);
    }
  }
}

/// A row of FP8, BF16 or F32 as floats.
void widen_row(const SpMatrix& w, int64_t row, float* to) {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> all;
    for (int code = 0; code < 256; code++) all[static_cast<size_t>(code)] = e4m3_to_float(static_cast<uint8_t>(code));
    return all;
  }();
  const int64_t first = row * w.cols;
  if (w.dtype == SP_F32) std::copy_n(static_cast<const float*>(w.data) + first, w.cols, to);
  for (int64_t c = 0; c < w.cols && w.dtype == SP_BF16; c++)
    to[c] = bf16_to_float(static_cast<const uint16_t*>(w.data)[first + c]);
  if (w.dtype != SP_F8_E4M3) return;
  const float* blocks = w.scale + row / SP_SCALE_BLOCK * ceil_div(w.cols, SP_SCALE_BLOCK);
  for (int64_t c = 0; c < w.cols; c++)
    to[c] = values[static_cast<const uint8_t*>(w.data)[first + c]] * blocks[c / SP_SCALE_BLOCK];
}

void pack_row(const SpBf16Kernels& k, const SpMatrix& w, int64_t row, int64_t lane, uint8_t* block) {
  const uint8_t* from = static_cast<const uint8_t*>(w.data);
  if (w.narrow || w.dtype == SP_F8_E4M3) {
    thread_local std::vector<float> floats;
    floats.resize(static_cast<size_t>(w.cols));
    widen_row(w, row, floats.data());
    return pack_row_as_codes(k, w, floats.data(), lane, block);
  }
  switch (w.dtype) {
    case SP_F32: {
      const float* floats = static_cast<const float*>(w.data) + row * w.cols;
      if (stays_float(w)) return pack_row(floats, w.cols, lane, 1, reinterpret_cast<float*>(block));
      thread_local std::vector<uint16_t> half;
      half.resize(static_cast<size_t>(w.cols));
      k.to_bf16(floats, w.cols, w.cols, half.data());
      return pack_row(half.data(), w.cols, lane, 2, reinterpret_cast<uint16_t*>(block));
    }
    case SP_BF16:
      return pack_row(static_cast<const uint16_t*>(w.data) + row * w.cols, w.cols, lane, 2,
                      reinterpret_cast<uint16_t*>(block));
    default:
      pack_row_codes(w, from + row * (w.dtype == SP_I8 ? w.cols : ceil_div(w.cols, 2)), lane, block);
      for (int64_t g = 0; g < group_count(w); g++) put_scale(w, g, lane, w.scale[row * group_count(w) + g], block);
  }
}

}  // namespace

InputKind input_kind(const SpMatrix& w) {
  return w.exact ? InputKind::kFull : has_codes(w) ? InputKind::kCodes : InputKind::kHalf;
}

SpPacked view(const SpMatrix& w) {
  const int32_t kept = has_codes(w) ? w.dtype == SP_I4 ? SP_I4 : SP_I8 : stays_float(w) ? SP_F32 : SP_BF16;
  return {static_cast<const uint8_t*>(w.packed),
          block_bytes(w),
          kept,
          static_cast<int32_t>(ceil_div(w.cols, 2)),
          w.cols,
          w.exact,
          packed_group(w),
          keeps_note(w) && *note_of(w, static_cast<const uint8_t*>(w.packed))};
}

int64_t pack(void* self, const SpMatrix* w, void* to) {
  const int64_t bytes = block_bytes(*w), head_rows = w->rows / w->heads, blocks = ceil_div(head_rows, SP_LANES);
  const int64_t all = w->heads * blocks * bytes, whole = all + (keeps_note(*w) ? kNoteBytes : 0);
  if (!to) return whole;
  std::atomic<uint8_t> subnormal{0};
  pool(self).threads.each(w->heads * blocks, [&](int64_t b) {
    uint8_t* block = static_cast<uint8_t*>(to) + b * bytes;
    const int64_t in_head = b % blocks * SP_LANES, first = b / blocks * head_rows + in_head;
    std::memset(block, 0, static_cast<size_t>(bytes));
    for (int64_t lane = 0; lane < std::min<int64_t>(SP_LANES, head_rows - in_head); lane++)
      pack_row(pool(self).k, *w, first + lane, lane, block);
    if (keeps_note(*w) && has_subnormal(reinterpret_cast<const uint16_t*>(block), bytes / 2)) subnormal = 1;
  });
  if (keeps_note(*w)) *note_of(*w, static_cast<uint8_t*>(to)) = subnormal;
  return whole;
}

}  // namespace sparrow::bf16
