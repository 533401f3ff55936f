// KV pages of the BF16 backend, and absorbed attention split over the threads: by query while there are many, by chunks
// of keys while there are few. The order of arithmetic is the same.
#include <algorithm>

#include "pool.h"

namespace sparrow::bf16 {
namespace {

/// Softmax states of groups of heads.
struct States {
  Lines<float> z;
  std::vector<SpSoftmax> of;
  SpSoftmax* ready(int64_t count, int64_t latent) {
    const int64_t size = SP_QUERY_HEADS * latent;
    if (z.size() < static_cast<size_t>(count * size)) z.resize(static_cast<size_t>(count * size));
    if (of.size() < static_cast<size_t>(count)) of.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; i++) of[static_cast<size_t>(i)].z = z.data() + i * size;
    return of.data();
  }
};

/// One token; its heads go in groups of up to 16.
struct Query {
  const SpBf16Kernels& k;
  const SpAttention& a;
  SpKvView kv;
  int64_t token;
  int32_t keys;

  int64_t groups() const { return ceil_div(a.heads, SP_QUERY_HEADS); }
  int32_t heads(int64_t group) const {
    return static_cast<int32_t>(std::min<int64_t>(SP_QUERY_HEADS, a.heads - group * SP_QUERY_HEADS));
  }
  int64_t first_head(int64_t group) const { return token * a.heads + group * SP_QUERY_HEADS; }
  int64_t packed_halves() const { return kv.layout.row_halves * SP_LANES * 2; }

  /// At least one: a token without keys gets a state, though no result.
  int32_t chunks() const { return std::max(1, static_cast<int32_t>(ceil_div(keys, SP_CHUNK_KEYS))); }

  const uint16_t* pack(Room<uint16_t>& memory) const {
    uint16_t* packed = memory.ready(groups() * packed_halves());
    for (int64_t g = 0; g < groups(); g++)
      k.pack_query(&kv.layout, a.q_latent + first_head(g) * kv.layout.latent, a.q_rope + first_head(g) * kv.layout.rope,
                   heads(g), packed + g * packed_halves());
    return packed;
  }

  /// `again`: of the chunk that this thread had last, for another group.
  void chunk(const uint16_t* packed, int32_t c, int64_t group, bool again, SpSoftmax* out) const {
    const int32_t first = c * SP_CHUNK_KEYS;
    const SpChunk chunk = {packed + group * packed_halves(),
                           a.chosen ? a.chosen + token * a.top_k + first : nullptr,
                           first,
                           std::min(SP_CHUNK_KEYS, keys - first),
                           heads(group),
                           a.scale,
                           again};
    thread_local Room<uint16_t> room;
    k.attend_chunk(&chunk, &kv, room.ready(sp_attend_room(&kv.layout)), out);
  }

  void merge(int64_t group, const SpSoftmax* next, SpSoftmax* into) const {
    k.attend_merge(next, heads(group), kv.layout.latent, into);
  }
  void finish(int64_t group, const SpSoftmax* state, float* z) const {
    k.attend_finish(state, heads(group), kv.layout.latent, z + first_head(group) * kv.layout.latent);
  }

  /// All of it on this thread.
  void whole(float* z) const {
    thread_local States all, parts;
    thread_local Room<uint16_t> memory;
    const uint16_t* packed = pack(memory);
    SpSoftmax *into = all.ready(groups(), kv.layout.latent), *next = parts.ready(1, kv.layout.latent);
    for (int32_t c = 0; c < chunks(); c++) {
      for (int64_t g = 0; g < groups(); g++) {
        chunk(packed, c, g, g > 0, c ? next : into + g);
        if (c) merge(g, next, into + g);
      }
    }
    for (int64_t g = 0; g < groups(); g++) finish(g, into + g, z);
  }

  /// Each chunk an item of the threads; each of its groups, too, where chunks are too few.
  void shared(Threads& threads, float* z) const {
    thread_local States own;
    thread_local Room<uint16_t> memory;
    const uint16_t* packed = pack(memory);
    SpSoftmax* states = own.ready(groups() * chunks(), kv.layout.latent);
    const int64_t together = chunks() < threads.count() ? 1 : groups();  // groups of an item
    threads.each(groups() / together * chunks(), [&](int64_t i) {
      const auto c = static_cast<int32_t>(i % chunks());
      for (int64_t g = 0; g < together; g++) {
        const int64_t group = i / chunks() + g;
        chunk(packed, c, group, g > 0, states + group * chunks() + c);
      }
    });
    for (int64_t g = 0; g < groups(); g++) {
      SpSoftmax* into = states + g * chunks();
      for (int32_t c = 1; c < chunks(); c++) merge(g, into + c, into);
      finish(g, into, z);
    }
  }
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
  const auto query_of = [&](int64_t t) {
    return Query{p.k,
                 *a,
                 {layout, pages->base, pages->page_stride, tokens->tables[t]},
                 t,
                 a->chosen ? a->counts[t] : tokens->positions[t] + 1};
  };
  if (tokens->n >= 2 * p.threads.count()) return p.threads.each(tokens->n, [&](int64_t t) { query_of(t).whole(z); });
  for (int64_t t = 0; t < tokens->n; t++) query_of(t).shared(p.threads, z);
}

}  // namespace sparrow::bf16
