// Expanded attention of many tokens of one sequence: keys and values of one head at a time from the latents, then dense
// products as of weights. Split over the threads by head; the order of additions is a matter of (token, head) alone.
#include <algorithm>

#include "pool.h"

namespace sparrow::bf16 {
namespace {

constexpr int64_t kTokens = 48;         // of one pass over a head's keys
constexpr int64_t kScores = 128 << 10;  // scores of such a pass, so that they stay near

/// What all heads share: queries as BF16, rotated key parts, masks, FP8 rows as BF16.
struct Shared {
  Room<uint16_t> q, masks, rows;
  Room<float> rope;
};

struct Scratch {
  Room<uint16_t> keys, values, weights;
  Room<float> wide, scores;
};

struct Call {
  Pool& pool;
  const SpExpanded& a;
  SpKvView kv;
  const SpTokens& tokens;
  int64_t keys, blocks;  // keys of the last token, and in sixteens
  SpLayout key_layout;   // of one head's key, nope|rope
  int64_t ld_q;
  uint16_t *q, *masks, *rows;
  float* rope;

  const uint8_t* row(int64_t s) const { return sp_key_row(&kv, {tokens.tables[0], nullptr, 0, 0}, s); }

  void prepare_page(int64_t page) const {
    const int64_t first = page * SP_PAGE_TOKENS, end = std::min<int64_t>(keys, first + SP_PAGE_TOKENS);
    for (int64_t s = first; s < end; s++) {
      const auto* half = reinterpret_cast<const uint16_t*>(row(s));
      if (kv.layout.fp8) {
        pool.k.load_fp8_row(&kv.layout, row(s), rows + s * kv.layout.row_halves);
        half = rows + s * kv.layout.row_halves;
      }
      pool.k.from_bf16(half + kv.layout.latent, kv.layout.rope, rope + s * kv.layout.rope);
    }
  }

  void prepare_token(int64_t t) const {
    const int64_t dim = a.nope + kv.layout.rope;
    for (int64_t h = 0; h < a.heads; h++)
      pool.k.to_bf16(a.q + (t * a.heads + h) * dim, dim, ceil_div(dim, 2) * 2, q + (t * a.heads + h) * ld_q);
    uint16_t* mask = masks + t * blocks;
    const int64_t length = tokens.positions[t] + 1;
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t left = a.chosen ? 0 : length - b * 16;
      mask[b] = static_cast<uint16_t>(left >= 16 ? 0xFFFF : left <= 0 ? 0 : (1 << left) - 1);
    }
    for (int64_t i = 0; a.chosen && i < a.counts[t]; i++) {
      const int32_t s = a.chosen[t * a.top_k + i];
      mask[s / 16] = static_cast<uint16_t>(mask[s / 16] | 1 << s % 16);
    }
  }

  /// Rows of head h of `w` times the latents of one page: y (keys of the page, w's rows of a head).
  void expand(const SpMatrix& w, int64_t h, int64_t page, float* y) const {
    const int64_t first = page * SP_PAGE_TOKENS, count = std::min<int64_t>(SP_PAGE_TOKENS, keys - first);
    const int64_t out = w.rows / w.heads;
    const uint16_t* x =
        kv.layout.fp8 ? rows + first * kv.layout.row_halves : reinterpret_cast<const uint16_t*>(row(first));
    const Inputs inputs = {{x, nullptr, kv.layout.row_halves, 0, static_cast<int32_t>(count), nullptr}, {}};
    const Tiles tiles(w);
    for (int64_t p = 0; p < tiles.panels; p++)
      tiles.multiply(pool.k, h, tiles.panel(p, are_many(count)), inputs, y, out);
  }

  int64_t key_block() const { return key_layout.row_halves * SP_LANES; }
  int64_t value_block() const { return blocks * SP_LANES * SP_LANES + 32; }  // never a power of two apart

  void expand_head(int64_t h, uint16_t* packed_keys, uint16_t* packed_values, float* wide) const {
    for (int64_t page = 0; page * SP_PAGE_TOKENS < keys; page++) {
      const int64_t first = page * SP_PAGE_TOKENS, count = std::min<int64_t>(SP_PAGE_TOKENS, keys - first);
      expand(*a.uk, h, page, wide);
      for (int64_t k = 0; k < count; k += SP_LANES)
        pool.k.pack_keys(&key_layout, wide + k * a.nope, rope + (first + k) * kv.layout.rope,
                         static_cast<int32_t>(std::min<int64_t>(SP_LANES, count - k)),
                         packed_keys + (first + k) / SP_LANES * key_block());
      expand(*a.uv, h, page, wide);
      pool.k.pack_values(wide, a.v, static_cast<int32_t>(count), a.v, value_block(), packed_values + first * SP_LANES);
    }
    // Keys up to a whole sixteen have weight zero, so their values must be numbers.
    const int64_t from = ceil_div(keys, 2) * 32, end = blocks * SP_LANES * SP_LANES;
    for (int64_t b = 0; b < ceil_div(a.v, SP_LANES); b++)
      std::fill(packed_values + b * value_block() + from, packed_values + b * value_block() + end, uint16_t{0});
  }

  /// Tokens [first, first + count) of head h.
  void attend(int64_t h, int64_t first, int64_t count, const uint16_t* packed_keys, const uint16_t* packed_values,
              float* scores, uint16_t* weights, float* out) const {
    const auto last = *std::max_element(tokens.positions + first, tokens.positions + first + count);
    const int64_t width = last / SP_LANES + 1, dim = a.nope + kv.layout.rope, ld = blocks * SP_LANES,
                  ld_weights = ld + 32;
    const auto n = static_cast<int32_t>(count);
    const SpPacked k = {reinterpret_cast<const uint8_t*>(packed_keys),
                        key_block() * 2,
                        SP_BF16,
                        static_cast<int32_t>(ceil_div(dim, 2)),
                        0,
                        0,
                        0};
    const SpInput queries = {q + (first * a.heads + h) * ld_q, nullptr, a.heads * ld_q, 0, n, nullptr};
    for (int64_t b = 0; b < width; b += SP_PANEL_BLOCKS) {
      const auto some = static_cast<int32_t>(std::min<int64_t>(SP_PANEL_BLOCKS, width - b));
      const SpPanel panel = {static_cast<int32_t>(b), 1, some, some * SP_LANES, 0};
      pool.k.gemm_bf16(&k, &panel, &queries, scores + b * SP_LANES, ld);
    }
    float totals[kTokens];
    for (int64_t t = 0; t < count; t++)
      totals[t] = pool.k.masked_softmax(scores + t * ld, masks + (first + t) * blocks,
                                        tokens.positions[first + t] / SP_LANES + 1, static_cast<int32_t>(width),
                                        a.scale, weights + t * ld_weights);
    const SpPacked v = {reinterpret_cast<const uint8_t*>(packed_values),
                        value_block() * 2,
                        SP_BF16,
                        static_cast<int32_t>(width * 8),
                        0,
                        0,
                        0};
    const SpInput p = {weights, nullptr, ld_weights, 0, n, nullptr};
    float* y = out + (first * a.heads + h) * a.v;
    for (int64_t b = 0; b * SP_LANES < a.v; b += SP_PANEL_BLOCKS) {
      const int64_t some = std::min<int64_t>(SP_PANEL_BLOCKS, ceil_div(a.v, SP_LANES) - b);
      const auto left = static_cast<int32_t>(std::min<int64_t>(some * SP_LANES, a.v - b * SP_LANES));
      const SpPanel panel = {static_cast<int32_t>(b), 1, static_cast<int32_t>(some), left, 0};
      pool.k.gemm_bf16(&v, &panel, &p, y + b * SP_LANES, int64_t{a.heads} * a.v);
    }
    for (int64_t t = 0; t < count; t++) pool.k.divide_row(y + t * a.heads * a.v, a.v, totals[t]);
  }

  void head(int64_t h, float* out) const {
    thread_local Scratch s;
    const int64_t step = std::clamp<int64_t>(kScores / (blocks * SP_LANES) / SP_TILE_TOKENS * SP_TILE_TOKENS,
                                             2 * SP_TILE_TOKENS, kTokens);
    uint16_t* packed_keys = s.keys.ready(blocks * key_block());
    uint16_t* packed_values = s.values.ready(ceil_div(a.v, SP_LANES) * value_block());
    uint16_t* weights = s.weights.ready(step * (blocks * SP_LANES + 32));
    float* scores = s.scores.ready(step * blocks * SP_LANES);
    expand_head(h, packed_keys, packed_values, s.wide.ready(SP_PAGE_TOKENS * std::max(a.nope, a.v)));
    for (int64_t t = 0; t < tokens.n; t += step)
      attend(h, t, std::min<int64_t>(step, tokens.n - t), packed_keys, packed_values, scores, weights, out);
  }
};

}  // namespace

void attend_expanded(void* self, const SpExpanded* a, const SpPages* pages, const SpTokens* tokens, float* heads_out) {
  if (tokens->n == 0) return;
  Pool& p = pool(self);
  thread_local Shared shared;
  const SpLayout layout = layout_of(p, pages->latent, pages->rope, pages->index);
  const int64_t dim = a->nope + pages->rope, ld_q = padded(dim), n = tokens->n,
                keys = *std::max_element(tokens->positions, tokens->positions + n) + 1,
                blocks = ceil_div(keys, SP_LANES);
  SpLayout key_layout = {};
  key_layout.latent = a->nope, key_layout.rope = pages->rope, key_layout.row_halves = ceil_div(dim, 32) * 32;
  const Call call = {p,
                     *a,
                     {layout, pages->base, pages->page_stride},
                     *tokens,
                     keys,
                     blocks,
                     key_layout,
                     ld_q,
                     shared.q.ready(n * a->heads * ld_q),
                     shared.masks.ready(n * blocks),
                     shared.rows.ready(layout.fp8 ? keys * layout.row_halves : 0),
                     shared.rope.ready(keys * pages->rope)};
  p.threads.each(ceil_div(keys, SP_PAGE_TOKENS), [&](int64_t page) { call.prepare_page(page); });
  p.threads.each(n, [&](int64_t t) { call.prepare_token(t); });
  p.threads.each(a->heads, [&](int64_t h) { call.head(h, heads_out); });
}

}  // namespace sparrow::bf16
