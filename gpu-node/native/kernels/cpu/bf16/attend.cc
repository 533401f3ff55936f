// Absorbed attention of one query over one chunk of keys. Scores: lanes are heads, a key's row is broadcast pair by
// pair straight from its page. Weighted sum: lanes are latent dimensions, two keys at a time.
#include <immintrin.h>

#include "chunk.h"
#include "kernels.h"

namespace {

#define SP_INLINE static inline __attribute__((always_inline))

constexpr int kKeys = 8, kHeads = 8;
constexpr int kAhead = 32;  // keys: chosen rows lie apart, and memory takes longer than eight keys' work
typedef int32_t Pair __attribute__((may_alias, aligned(2)));

/// scores (N, 16) of N keys. Even and odd pairs add up apart: one sum a key would wait for itself.
template <int N>
SP_INLINE void score_keys(const uint16_t* query, int64_t pairs, const uint16_t* const* rows, float* scores) {
  __m512 even[N], odd[N];
  const uint16_t* row[N];
  for (int i = 0; i < N; i++) even[i] = odd[i] = _mm512_setzero_ps(), row[i] = rows[i];
  for (int64_t d = 0; d < pairs; d += 2) {
    const __m512bh q0 = (__m512bh)_mm512_load_si512(query + d * 32),
                   q1 = (__m512bh)_mm512_load_si512(query + d * 32 + 32);
    for (int i = 0; i < N; i++)
      even[i] = _mm512_dpbf16_ps(even[i], q0, (__m512bh)_mm512_set1_epi32(*(const Pair*)(row[i] + 2 * d)));
    for (int i = 0; i < N; i++)
      odd[i] = _mm512_dpbf16_ps(odd[i], q1, (__m512bh)_mm512_set1_epi32(*(const Pair*)(row[i] + 2 * d + 2)));
  }
  for (int i = 0; i < N; i++) _mm512_store_ps(scores + i * SP_LANES, _mm512_add_ps(even[i], odd[i]));
}

SP_INLINE void prefetch_rows(const uint16_t* const* rows, int32_t count, int64_t halves) {
  for (int32_t i = 0; i < count; i++) {
    for (int64_t d = 0; d < halves; d += 32) _mm_prefetch((const char*)(rows[i] + d), _MM_HINT_T0);
  }
}

static void score_rows(const uint16_t* query, int64_t halves, const uint16_t* const* rows, int32_t count,
                       float* scores) {
  const int64_t pairs = halves / 2;
  int32_t i = 0;
  prefetch_rows(rows, count < kAhead ? count : kAhead, halves);
  for (; i + kKeys <= count; i += kKeys) {
    const int32_t left = count - i - kAhead;
    prefetch_rows(rows + i + kAhead, left < kKeys ? left : kKeys, halves);
    score_keys<kKeys>(query, pairs, rows + i, scores + i * SP_LANES);
  }
  if (count - i >= 4) score_keys<4>(query, pairs, rows + i, scores + i * SP_LANES), i += 4;
  for (; i < count; i++) score_keys<1>(query, pairs, rows + i, scores + i * SP_LANES);
}

/// z (H, latent) columns [d, d + 32) = sum over key pairs of weight * latent.
template <int H>
SP_INLINE void weigh(const uint16_t* const* rows, int32_t count, const uint16_t* weights, int64_t d, int32_t latent,
                     float* z) {
  __m512 low[H], high[H];
  for (int h = 0; h < H; h++) low[h] = high[h] = _mm512_setzero_ps();
  for (int32_t i = 0; i < count; i += 2) {
    const __m512i a = _mm512_loadu_si512(rows[i] + d), b = _mm512_loadu_si512(rows[i + 1 < count ? i + 1 : i] + d);
    const __m512bh ab_low = (__m512bh)_mm512_unpacklo_epi16(a, b), ab_high = (__m512bh)_mm512_unpackhi_epi16(a, b);
    for (int h = 0; h < H; h++) {
      const __m512bh w = (__m512bh)_mm512_set1_epi32(*(const Pair*)(weights + i * SP_LANES + 2 * h));
      low[h] = _mm512_dpbf16_ps(low[h], ab_low, w);
      high[h] = _mm512_dpbf16_ps(high[h], ab_high, w);
    }
  }
  for (int h = 0; h < H; h++) sp_store_unpacked(low[h], high[h], latent - d, z + int64_t{h} * latent + d);
}

/// 32 floats from x as BF16, zeros from `left` on.
SP_INLINE __m512i round_32(const float* x, int64_t left) {
  const __mmask16 m0 = left >= 16 ? 0xFFFF : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
  const __mmask16 m1 = left >= 32 ? 0xFFFF : left <= 16 ? 0 : static_cast<__mmask16>((1u << (left - 16)) - 1);
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(m1, x + 16), _mm512_maskz_loadu_ps(m0, x));
}

/// Between pieces of its work a chunk asks for some rows of the next, into the second level of caches. Inlined, or GCC
/// takes `ask` for a function without effect and leaves it out.
struct Ahead {
  const SpKvView* kv;
  const SpKeys& keys;
  int32_t asked = 0;
  __attribute__((always_inline)) void ask() {
    constexpr int32_t kSome = 8;
    for (const int32_t end = asked + kSome; asked < end && asked < keys.count; asked++) {
      const char* row = (const char*)sp_key_row(kv, keys, asked);
      for (int64_t byte = 0; byte < kv->layout.row_bytes; byte += 64) _mm_prefetch(row + byte, _MM_HINT_T1);
    }
  }
};

template <int H>
static void weigh_heads(const uint16_t* const* rows, int32_t count, const uint16_t* weights, int32_t latent, float* z,
                        Ahead* ahead) {
  for (int64_t d = 0; d < latent; d += 32) {
    ahead->ask();
    weigh<H>(rows, count, weights, d, latent, z);
  }
}

}  // namespace

void sp_pack_query(const SpLayout* layout, const float* q_latent, const float* q_rope, int32_t heads, uint16_t* query) {
  alignas(64) float row[32] = {};
  for (int64_t d = 0; d < layout->row_halves; d += 32) {
    __m512i pairs[16];
    for (int32_t h = 0; h < SP_LANES; h++) {
      pairs[h] = _mm512_setzero_si512();
      if (h >= heads) continue;
      const int64_t latent = layout->latent - d, rope = d - layout->latent;
      if (latent >= 32) {
        pairs[h] = round_32(q_latent + int64_t{h} * layout->latent + d, 32);
      } else if (rope >= 0) {
        pairs[h] = round_32(q_rope + int64_t{h} * layout->rope + rope, layout->rope - rope);
      } else {  // the last latents and the first of the rope part
        for (int64_t i = 0; i < 32; i++)
          row[i] = i < latent                  ? q_latent[int64_t{h} * layout->latent + d + i]
                   : i - latent < layout->rope ? q_rope[int64_t{h} * layout->rope + i - latent]
                                               : 0.0f;
        pairs[h] = round_32(row, 32);
      }
    }
    sp_transpose(pairs);
    for (int i = 0; i < 16; i++) _mm512_store_si512(query + (d / 2 + i) * 32, pairs[i]);
  }
}

void sp_attend_chunk(const SpChunk* c, const SpKvView* kv, uint16_t* wide, SpSoftmax* out) {
  alignas(64) float scores[SP_CHUNK_KEYS * SP_LANES];
  alignas(64) uint16_t weights[SP_CHUNK_KEYS * SP_LANES];
  const uint16_t* rows[SP_CHUNK_KEYS];
  const SpLayout* l = &kv->layout;
  for (int32_t i = 0; i < c->keys.count; i++) {
    const uint8_t* row = sp_key_row(kv, c->keys, i);
    rows[i] = (const uint16_t*)row;
    if (!l->fp8) continue;
    rows[i] = wide + i * (l->row_halves + 32);
    if (!c->again) sp_load_fp8_row(l, row, wide + i * (l->row_halves + 32));
  }
  score_rows(c->query, kv->layout.row_halves, rows, c->keys.count, scores);
  sp_chunk_softmax(c, scores, weights, out);
  const int32_t latent = kv->layout.latent;
  Ahead ahead = {kv, c->next};
  const auto heads = [&](int32_t h, auto weigh) {
    weigh(rows, c->keys.count, weights + 2 * h, latent, out->z + int64_t{h} * latent, &ahead);
  };
  int32_t h = 0;
  for (; h + kHeads <= c->heads; h += kHeads) heads(h, weigh_heads<kHeads>);
  if (c->heads - h >= 4) heads(h, weigh_heads<4>), h += 4;
  for (; h < c->heads; h++) heads(h, weigh_heads<1>);
}

void sp_attend_merge(const SpSoftmax* next, int32_t heads, int32_t latent, SpSoftmax* into) {
  const __m512 old_top = _mm512_loadu_ps(into->top), new_top = _mm512_loadu_ps(next->top);
  const __m512 top = _mm512_max_ps(old_top, new_top);
  alignas(64) float keep[SP_LANES], add[SP_LANES];
  const __m512 a = sp_exp(_mm512_sub_ps(old_top, top)), b = sp_exp(_mm512_sub_ps(new_top, top));
  _mm512_store_ps(keep, a);
  _mm512_store_ps(add, b);
  _mm512_storeu_ps(into->top, top);
  _mm512_storeu_ps(into->total,
                   _mm512_fmadd_ps(_mm512_loadu_ps(next->total), b, _mm512_mul_ps(_mm512_loadu_ps(into->total), a)));
  for (int64_t h = 0; h < heads; h++) {
    const __m512 k = _mm512_set1_ps(keep[h]), n = _mm512_set1_ps(add[h]);
    for (int64_t i = 0; i < latent; i += 16) {
      const __mmask16 mask = latent - i >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << (latent - i)) - 1);
      float* z = into->z + h * latent + i;
      const __m512 old = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, z), k);
      _mm512_mask_storeu_ps(z, mask, _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, next->z + h * latent + i), n, old));
    }
  }
}

void sp_attend_finish(const SpSoftmax* state, int32_t heads, int32_t latent, float* z) {
  for (int64_t h = 0; h < heads; h++) {
    const __m512 scale = _mm512_set1_ps(1.0f / state->total[h]);
    for (int64_t i = 0; i < latent; i += 16) {
      const __mmask16 mask = latent - i >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << (latent - i)) - 1);
      _mm512_mask_storeu_ps(z + h * latent + i, mask,
                            _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, state->z + h * latent + i), scale));
    }
  }
}
