// KV pages of the BF16 backend, and absorbed attention split over the threads: by query while there are many, by chunks
// of keys while there are few. The order of arithmetic is the same.
#include <algorithm>

#include "pool.h"

namespace sparrow::bf16 {
namespace {

struct State {
  std::vector<float> z;
  SpSoftmax softmax;
  SpSoftmax* ready(int64_t heads, int64_t latent) {
    if (z.size() < static_cast<size_t>(heads * latent)) z.resize(static_cast<size_t>(heads * latent));
    softmax.z = z.data();
    return &softmax;
  }
};

/// One (token, group of up to 16 heads).
struct Query {
  const SpBf16Kernels& k;
  const SpAttention& a;
  SpKvView kv;
  int64_t token, first_head;
  int32_t heads, keys;

  /// At least one: a token without keys gets a state, though no result.
  int32_t chunks() const { return std::max(1, static_cast<int32_t>(ceil_div(keys, SP_CHUNK_KEYS))); }

  const uint16_t* pack(Aligned<uint16_t>& memory) const {
    uint16_t* at = memory.ready(kv.layout.row_halves * SP_LANES * 2);
    const int64_t head = token * a.heads + first_head;
    k.pack_query(&kv.layout, a.q_latent + head * kv.layout.latent, a.q_rope + head * kv.layout.rope, heads, at);
    return at;
  }

  void chunk(const uint16_t* packed, int32_t c, SpSoftmax* out) const {
    const int32_t first = c * SP_CHUNK_KEYS;
    const SpChunk chunk = {packed, a.chosen ? a.chosen + token * a.top_k + first : nullptr,
                           first,  std::min(SP_CHUNK_KEYS, keys - first),
                           heads,  a.scale};
    thread_local Aligned<uint16_t> wide;
    k.attend_chunk(&chunk, &kv, wide.ready(sp_attend_room(&kv.layout)), out);
  }

  float* out(float* z) const { return z + (token * a.heads + first_head) * kv.layout.latent; }
};

}  // namespace

SpLayout layout_of(const Pool& p, int32_t latent, int32_t rope, int32_t index) {
  SpLayout l = {};
  l.latent = latent, l.rope = rope, l.index = index, l.fp8 = p.fp8_kv;
  l.row_halves = ceil_div(latent + rope, 32) * 32;
  l.row_bytes = l.fp8 ? latent + ceil_div(latent, 128) * 4 + rope * 2 : l.row_halves * 2;
  l.index_quads = ceil_div(index, 4);
  l.keys_at = SP_PAGE_TOKENS * l.row_bytes;
  l.scales_at = l.keys_at + SP_PAGE_TOKENS * l.index_quads * 4;
  l.bytes = l.scales_at + (index ? SP_PAGE_TOKENS * 4 : 0);
  return l;
}

int64_t page_bytes(void* self, int32_t latent, int32_t rope, int32_t index) {
  return layout_of(pool(self), latent, rope, index).bytes;
}

void cache_write(void* self, const SpPages* pages, const SpTokens* tokens, const float* latent, const float* rope,
                 const float* index) {
  const Pool& p = pool(self);
  const SpLayout l = layout_of(p, pages->latent, pages->rope, pages->index);
  pool(self).threads.each(tokens->n, [&](int64_t t) {
    const int64_t at = tokens->positions[t] % SP_PAGE_TOKENS;
    uint8_t* page = pages->base + pages->page_stride * tokens->tables[t][tokens->positions[t] / SP_PAGE_TOKENS];
    p.k.store_row(&l, latent + t * l.latent, rope + t * l.rope, page + at * l.row_bytes);
    if (index) p.k.store_index_key(&l, index + t * l.index, at, page);
  });
}

void attend(void* self, const SpAttention* a, const SpPages* pages, const SpTokens* tokens, float* z) {
  Pool& p = pool(self);
  const SpLayout layout = layout_of(p, pages->latent, pages->rope, pages->index);
  const int64_t groups = ceil_div(a->heads, SP_QUERY_HEADS), items = tokens->n * groups;
  const auto query_of = [&](int64_t item) {
    const int64_t t = item / groups, head = item % groups * SP_QUERY_HEADS;
    return Query{p.k,
                 *a,
                 {layout, pages->base, pages->page_stride, tokens->tables[t]},
                 t,
                 head,
                 static_cast<int32_t>(std::min<int64_t>(SP_QUERY_HEADS, a->heads - head)),
                 a->chosen ? a->counts[t] : tokens->positions[t] + 1};
  };
  if (items >= 2 * p.threads.count()) {
    p.threads.each(items, [&](int64_t item) {
      thread_local State whole, part;
      thread_local Aligned<uint16_t> memory;
      const Query q = query_of(item);
      const uint16_t* packed = q.pack(memory);
      SpSoftmax *into = whole.ready(q.heads, layout.latent), *next = part.ready(q.heads, layout.latent);
      q.chunk(packed, 0, into);
      for (int32_t c = 1; c < q.chunks(); c++) {
        q.chunk(packed, c, next);
        p.k.attend_merge(next, q.heads, layout.latent, into);
      }
      p.k.attend_finish(into, q.heads, layout.latent, q.out(z));
    });
    return;
  }
  for (int64_t item = 0; item < items; item++) {
    thread_local std::vector<State> parts;
    thread_local Aligned<uint16_t> memory;
    const Query q = query_of(item);
    const uint16_t* packed = q.pack(memory);
    std::vector<State>& states = parts;
    if (states.size() < static_cast<size_t>(q.chunks())) states.resize(static_cast<size_t>(q.chunks()));
    p.threads.each(q.chunks(), [&](int64_t c) {
      q.chunk(packed, static_cast<int32_t>(c), states[static_cast<size_t>(c)].ready(q.heads, layout.latent));
    });
    for (int32_t c = 1; c < q.chunks(); c++)
      p.k.attend_merge(&states[static_cast<size_t>(c)].softmax, q.heads, layout.latent, &states[0].softmax);
    p.k.attend_finish(&states[0].softmax, q.heads, layout.latent, q.out(z));
  }
}

}  // namespace sparrow::bf16
