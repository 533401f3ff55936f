// KV pages of the BF16 backend, and absorbed attention split over the threads: by query while there are many, by chunks
// of keys while there are few. The order of arithmetic is the same.
#include <algorithm>
#include <span>

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

/// The positions that token t attends to; null: all up to its own.
const int32_t* chosen_of(const SpAttention& a, const SpTokens& tokens, int32_t t) {
  const bool some = a.chosen && a.counts[t] <= tokens.positions[t];
  return some ? a.chosen + int64_t{t} * a.top_k : nullptr;
}

/// One token; its heads go in groups of up to 16.
struct Query {
  const SpBf16Kernels& k;
  const SpAttention& a;
  SpKvView kv;
  const int32_t* table;
  int64_t token;
  const int32_t* chosen;  // positions, or null: the first `keys`
  int32_t keys;

  int64_t groups() const { return ceil_div(a.heads, SP_QUERY_HEADS); }
  int32_t heads(int64_t group) const {
    return static_cast<int32_t>(std::min<int64_t>(SP_QUERY_HEADS, a.heads - group * SP_QUERY_HEADS));
  }
  int64_t first_head(int64_t group) const { return token * a.heads + group * SP_QUERY_HEADS; }
  int64_t packed_halves() const { return kv.layout.row_halves * SP_LANES * 2; }

  /// At least one: a token without keys gets a state, though no result.
  int32_t chunks() const { return std::max(1, static_cast<int32_t>(ceil_div(keys, SP_CHUNK_KEYS))); }

  void pack(uint16_t* packed) const {
    for (int64_t g = 0; g < groups(); g++)
      k.pack_query(&kv.layout, a.q_latent + first_head(g) * kv.layout.latent, a.q_rope + first_head(g) * kv.layout.rope,
                   heads(g), packed + g * packed_halves());
  }

  SpKeys keys_of(int32_t c) const {
    const int32_t first = c * SP_CHUNK_KEYS;
    return {table, chosen ? chosen + first : nullptr, first, std::min(SP_CHUNK_KEYS, keys - first)};
  }

  /// `again`: of the chunk that this thread had last, for another group or a query of no more keys.
  void chunk(const uint16_t* packed, int32_t c, int64_t group, bool again, const SpKeys& next, SpSoftmax* out) const {
    const SpChunk chunk = {packed + group * packed_halves(), keys_of(c), heads(group), a.scale, again, next};
    thread_local Room<uint16_t> room;
    k.attend_chunk(&chunk, &kv, room.ready(sp_attend_room(&kv.layout)), out);
  }

  void merge(int64_t group, const SpSoftmax* next, SpSoftmax* into) const {
    k.attend_merge(next, heads(group), kv.layout.latent, into);
  }
  void finish(int64_t group, const SpSoftmax* state, float* z) const {
    k.attend_finish(state, heads(group), kv.layout.latent, z + first_head(group) * kv.layout.latent);
  }

  /// Each chunk an item of the threads; each of its groups, too, where chunks are too few.
  void shared(Threads& threads, float* z) const {
    thread_local States own;
    thread_local Room<uint16_t> memory;
    uint16_t* packed = memory.ready(groups() * packed_halves());
    pack(packed);
    SpSoftmax* states = own.ready(groups() * chunks(), kv.layout.latent);
    const int64_t together = chunks() < threads.count() ? 1 : groups();  // groups of an item
    threads.each(groups() / together * chunks(), [&](int64_t i) {
      const auto c = static_cast<int32_t>(i % chunks());
      for (int64_t g = 0; g < together; g++) {
        const int64_t group = i / chunks() + g;
        chunk(packed, c, group, g > 0, {}, states + group * chunks() + c);
      }
    });
    for (int64_t g = 0; g < groups(); g++) {
      SpSoftmax* into = states + g * chunks();
      for (int32_t c = 1; c < chunks(); c++) merge(g, into + c, into);
      finish(g, into, z);
    }
  }
};

/// Queries of one sequence, the one of most keys first, whose chunks are alike: each chunk's rows are brought together
/// once for all of them. All of it on this thread. Where they are not near (`far`), each chunk asks for the next one's;
/// the last one for `after`.
void attend_together(std::span<const Query> queries, bool far, const SpKeys& after, float* z) {
  thread_local States all, parts;
  thread_local Room<uint16_t> memory;
  const Query& most = queries.front();
  const int64_t latent = most.kv.layout.latent, groups = most.groups(), halves = groups * most.packed_halves();
  const auto count = static_cast<int64_t>(queries.size());
  uint16_t* packed = memory.ready(count * halves);
  SpSoftmax *into = all.ready(count * groups, latent), *next = parts.ready(1, latent);
  for (int64_t i = 0; i < count; i++) queries[static_cast<size_t>(i)].pack(packed + i * halves);
  for (int32_t c = 0; c < most.chunks(); c++) {
    const SpKeys ahead = c + 1 == most.chunks() ? after : far ? most.keys_of(c + 1) : SpKeys{};
    for (int64_t i = 0; i < count * groups; i++) {
      const Query& query = queries[static_cast<size_t>(i / groups)];
      if (c >= query.chunks()) break;
      query.chunk(packed + i / groups * halves, c, i % groups, i > 0, i ? SpKeys{} : ahead, c ? next : into + i);
      if (c) query.merge(i % groups, next, into + i);
    }
  }
  for (int64_t i = 0; i < count * groups; i++) queries[static_cast<size_t>(i / groups)].finish(i % groups, into + i, z);
}

/// Neighbours that attend to all before them go together: as many as have kTogether groups of heads, and leave work for
/// all threads. Returns where each item of the threads begins, and the end.
std::vector<int32_t> items_of(const SpAttention& a, const SpTokens& tokens, int32_t threads) {
  constexpr int64_t kTogether = 8;
  const int64_t groups = ceil_div(a.heads, SP_QUERY_HEADS);
  const auto most = static_cast<int32_t>(std::min(kTogether / groups, int64_t{tokens.n} / (2 * threads)));
  std::vector<int32_t> begins = {0};
  for (int32_t t = 1; t < tokens.n; t++) {
    const bool follows = tokens.tables[t] == tokens.tables[t - 1] && tokens.positions[t] == tokens.positions[t - 1] + 1;
    const bool alike = !chosen_of(a, tokens, t - 1) && !chosen_of(a, tokens, t);
    if (!follows || !alike || t - begins.back() >= most) begins.push_back(t);
  }
  begins.push_back(tokens.n);
  return begins;
}

}  // namespace

SpLayout layout_of(const Pool& p, int32_t latent, int32_t rope, int32_t index) {
  SpLayout l = {};
  l.latent = latent, l.rope = rope, l.index = index, l.fp8 = p.fp8_kv;
  l.row_halves = ceil_div(latent + rope, 32) * 32;
  l.row_bytes = l.fp8 ? latent + ceil_div(latent, 128) * 4 + rope * 2 : l.row_halves * 2;
  l.index_quads = ceil_div(index, 4);
  l.scales_at = SP_PAGE_TOKENS * l.index_quads * 4;
  return l;
}

int64_t row_bytes(void* self, int32_t latent, int32_t rope) {
  return SP_PAGE_TOKENS * layout_of(pool(self), latent, rope, 0).row_bytes;
}

int64_t key_bytes(void* self, int32_t index) {
  return index ? layout_of(pool(self), 0, 0, index).scales_at + SP_PAGE_TOKENS * int64_t{sizeof(float)} : 0;
}

void cache_write(void* self, const SpPages* pages, const SpTokens* tokens, const float* latent, const float* rope,
                 const float* index) {
  const Pool& p = pool(self);
  const SpLayout l = layout_of(p, pages->latent, pages->rope, pages->index);
  pool(self).threads.each(tokens->n, [&](int64_t t) {
    const int64_t at = tokens->positions[t] % SP_PAGE_TOKENS;
    const int64_t page = tokens->tables[t][tokens->positions[t] / SP_PAGE_TOKENS];
    uint8_t* rows = pages->base + pages->page_stride * page;
    p.k.store_row(&l, latent + t * l.latent, rope + t * l.rope, rows + at * l.row_bytes);
    if (index) p.k.store_index_key(&l, index + t * l.index, at, pages->keys + pages->key_stride * page);
  });
}

void attend(void* self, const SpAttention* a, const SpPages* pages, const SpTokens* tokens, float* z) {
  Pool& p = pool(self);
  const SpLayout layout = layout_of(p, pages->latent, pages->rope, pages->index);
  const auto query_of = [&](int32_t t) {
    const int32_t* chosen = chosen_of(*a, *tokens, t);
    return Query{p.k, *a,     {layout, pages->base, pages->page_stride},       tokens->tables[t],
                 t,   chosen, chosen ? a->counts[t] : tokens->positions[t] + 1};
  };
  if (tokens->n < 2 * p.threads.count()) {
    for (int32_t t = 0; t < tokens->n; t++) query_of(t).shared(p.threads, z);
    return;
  }
  const std::vector<int32_t> begins = items_of(*a, *tokens, p.threads.count());
  // A token behind another of its sequence finds most of its rows in the caches.
  const auto far = [&](int32_t t) { return t == 0 || tokens->tables[t] != tokens->tables[t - 1]; };
  p.threads.each(static_cast<int64_t>(begins.size()) - 1, [&](int64_t item) {
    thread_local std::vector<Query> queries;
    queries.clear();
    const int32_t begin = begins[static_cast<size_t>(item)], end = begins[static_cast<size_t>(item) + 1];
    for (int32_t t = end - 1; t >= begin; t--) queries.push_back(query_of(t));
    const bool more = end < tokens->n && far(end);
    attend_together(queries, far(begin),
                    more ? query_of(begins[static_cast<size_t>(item) + 2] - 1).keys_of(0) : SpKeys{}, z);
  });
}

}  // namespace sparrow::bf16
