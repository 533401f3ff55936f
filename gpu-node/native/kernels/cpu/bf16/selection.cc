// Exact top-k while scoring: only scores above the k-th best so far are kept, so no row of scores reaches memory. A
// block of queries shares each page of keys; few queries share the pages among the threads. Equal scores: lower
// position.
#include <algorithm>
#include <atomic>
#include <numeric>

#include "pool.h"

namespace sparrow::bf16 {
namespace {

constexpr int64_t kQueryBlock = 16;

/// The best of the positions offered so far, in ascending order; more than `k` between two clean-ups.
class Candidates {
 public:
  /// Keys up to `floor` are known not to be among the best.
  void start(const SpBf16Kernels& kernels, int32_t k, int32_t floor = INT32_MIN) {
    kernels_ = &kernels;
    k_ = k;
    size_ = 0;
    floor_ = floor;
    limit_ = std::max(2 * k, 1024);
    const size_t capacity = static_cast<size_t>(limit_) + SP_PAGE_TOKENS + SP_LANES;
    if (keys_.size() < capacity) keys_.resize(capacity), positions_.resize(capacity);
  }

  void offer(const float* scores, int32_t count, int32_t first) {
    int32_t keys[SP_PAGE_TOKENS];
    kernels_->order_keys(scores, count, keys);
    size_ += kernels_->append_above(keys, count, floor_, first, keys_.data() + size_, positions_.data() + size_);
    if (size_ > limit_) shrink(k_ / 8);
  }

  /// Appends another's candidates, all of later positions.
  void take(const Candidates& later) {
    for (int32_t i = 0; i < later.size_; i += SP_PAGE_TOKENS) {
      const int32_t count = std::min(SP_PAGE_TOKENS, later.size_ - i);
      std::copy_n(later.keys_.data() + i, count, keys_.data() + size_);
      std::copy_n(later.positions_.data() + i, count, positions_.data() + size_);
      size_ += count;
      if (size_ > limit_) shrink(k_ / 8);
    }
  }

  /// Drops all but the k best.
  void keep_best() { shrink(0); }

  /// Keys up to it are not among the best anywhere; those that equal its successor may be, at earlier positions.
  int32_t bound() const { return floor_ == INT32_MIN ? floor_ : floor_ - 1; }

  int32_t finish(int32_t* chosen) {
    keep_best();
    std::copy_n(positions_.data(), size_, chosen);
    return size_;
  }

 private:
  /// Leaves k to k + slack candidates; ties at the cut are all kept unless exactly k are asked for.
  void shrink(int32_t slack) {
    if (size_ <= k_) return;
    int32_t kept;
    const int32_t cut = kernels_->cut(keys_.data(), size_, k_, slack, &kept);
    int32_t ties = kept;
    if (kept > k_ + slack) {
      // Equal keys at the cut: the earliest positions stay.
      int32_t above = 0;
      for (int32_t i = 0; i < size_; i++) above += keys_[static_cast<size_t>(i)] > cut;
      ties = k_ - above;
    }
    size_ = kernels_->keep_from(keys_.data(), positions_.data(), size_, cut, ties);
    floor_ = cut;  // later keys that equal it lose to k earlier ones
  }

  const SpBf16Kernels* kernels_ = nullptr;
  std::vector<int32_t> keys_, positions_;
  int32_t k_ = 0, size_ = 0, limit_ = 0;
  int32_t floor_ = 0;  // keys up to it can no longer be among the k best
};

/// One query quantised, with memory that stays.
struct Heads {
  Lines<int8_t> q;
  Lines<float> w;
  std::vector<int32_t> start;
  SpIndexHeads view;
  void load(const SpBf16Kernels& k, const SpIndexQuery& query, int64_t token, int64_t quads) {
    q.resize(static_cast<size_t>(query.heads * quads * 4));
    w.resize(static_cast<size_t>(query.heads));
    start.resize(w.size());
    view = {q.data(), w.data(), start.data(), query.heads};
    k.quantize_index_query(query.q + token * query.heads * query.dim, query.w + token * query.heads, query.dim, quads,
                           &view);
  }
};

struct Selection {
  const SpBf16Kernels& k;
  const SpIndexQuery& query;
  const SpPages& pages;
  const SpTokens& tokens;
  SpLayout layout;
  int32_t *chosen, *counts;
  float* scores;  // (n, ld_scores) for a tap, or null
  int64_t ld_scores;

  int32_t length(int64_t t) const { return tokens.positions[t] + 1; }

  /// Everything is chosen: no score is needed.
  bool trivial(int64_t t) const {
    if (length(t) > query.top_k || scores) return false;
    std::iota(chosen + t * query.top_k, chosen + t * query.top_k + length(t), 0);
    counts[t] = length(t);
    return true;
  }

  const uint8_t* keys_at(int64_t t, int64_t page) const {
    return pages.keys + pages.key_stride * tokens.tables[t][page];
  }

  void score_page(const Heads& heads, int64_t t, int64_t page, const uint8_t* next, Candidates& best) const {
    alignas(64) float row[SP_PAGE_TOKENS];
    const int32_t first = static_cast<int32_t>(page * SP_PAGE_TOKENS);
    const int32_t count = std::min<int32_t>(SP_PAGE_TOKENS, length(t) - first);
    k.index_page(&heads.view, &layout, keys_at(t, page), next, row);
    if (scores) std::copy_n(row, count, scores + t * ld_scores + first);
    best.offer(row, count, first);
  }

  /// Queries [begin, end), all of one sequence: each page is read once.
  void block(int64_t begin, int64_t end) const {
    thread_local std::vector<Heads> heads(kQueryBlock);
    thread_local std::vector<Candidates> best(kQueryBlock);
    int64_t pages_seen = 0;
    for (int64_t t = begin; t < end; t++) {
      if (trivial(t)) continue;
      heads[static_cast<size_t>(t - begin)].load(k, query, t, layout.index_quads);
      best[static_cast<size_t>(t - begin)].start(k, query.top_k);
      pages_seen = std::max<int64_t>(pages_seen, ceil_div(length(t), SP_PAGE_TOKENS));
    }
    for (int64_t page = 0; page < pages_seen; page++) {
      const uint8_t* next = page + 1 < pages_seen ? keys_at(begin, page + 1) : nullptr;
      for (int64_t t = begin; t < end; t++) {
        if (page * SP_PAGE_TOKENS >= length(t) || (length(t) <= query.top_k && !scores)) continue;
        score_page(heads[static_cast<size_t>(t - begin)], t, page, next, best[static_cast<size_t>(t - begin)]);
        next = nullptr;  // the first query asks for it
      }
    }
    for (int64_t t = begin; t < end; t++) {
      if (length(t) > query.top_k || scores)
        counts[t] = best[static_cast<size_t>(t - begin)].finish(chosen + t * query.top_k);
    }
  }

  /// One query, its pages shared among the threads.
  void alone(Pool& p, int64_t t) const {
    if (trivial(t)) return;
    thread_local Heads own;
    thread_local std::vector<Candidates> parts;
    Heads& heads = own;
    std::vector<Candidates>& best = parts;
    heads.load(k, query, t, layout.index_quads);
    constexpr int64_t kShares = 3;  // a thread, so that one that was held up is helped
    const int64_t all = ceil_div(length(t), SP_PAGE_TOKENS),
                  share = std::max<int64_t>(8, ceil_div(all, kShares * p.threads.count()));
    const int64_t shares = ceil_div(all, share);
    if (best.size() < static_cast<size_t>(shares)) best.resize(static_cast<size_t>(shares));
    std::atomic<int32_t> bound{INT32_MIN};  // what one share found out spares the next ones work
    p.threads.each(shares, [&](int64_t i) {
      Candidates& mine = best[static_cast<size_t>(i)];
      mine.start(k, query.top_k, bound.load(std::memory_order_relaxed));
      const int64_t end = std::min(all, (i + 1) * share);
      for (int64_t page = i * share; page < end; page++) {
        score_page(heads, t, page, page + 1 < end ? keys_at(t, page + 1) : nullptr, mine);
      }
      mine.keep_best();
      int32_t known = bound.load(std::memory_order_relaxed);
      while (known < mine.bound() && !bound.compare_exchange_weak(known, mine.bound(), std::memory_order_relaxed)) {
      }
    });
    for (int64_t i = 1; i < shares; i++) best[0].take(best[static_cast<size_t>(i)]);
    counts[t] = best[0].finish(chosen + t * query.top_k);
    ask_rows(p, t);
  }

  /// The rows that each thread attends to first come into its caches while the query is absorbed. Inlined, or GCC takes
  /// it for a function without effect and leaves it out.
  void ask_rows(Pool& p, int64_t t) const {
    const int64_t threads = p.threads.count(), chunks = ceil_div(counts[t], SP_CHUNK_KEYS);
    const SpKvView kv = {layout, pages.base, pages.page_stride};
    const SpKeys keys = {tokens.tables[t], chosen + t * query.top_k, 0, counts[t]};
    p.threads.each(
        threads, [&](int64_t i) __attribute__((always_inline)) {
          const int64_t first = chunks * i / threads * SP_CHUNK_KEYS,
                        end = std::min<int64_t>(first + SP_CHUNK_KEYS, counts[t]);
          for (int64_t j = first; j < end; j++) {
            const uint8_t* row = sp_key_row(&kv, keys, j);
            for (int64_t byte = 0; byte < layout.row_bytes; byte += 64) __builtin_prefetch(row + byte, 0, 2);
          }
        });
  }
};

}  // namespace

void index_select(void* self, const SpIndexQuery* query, const SpPages* pages, const SpTokens* tokens, int32_t* chosen,
                  int32_t* counts, float* scores, int64_t ld_scores) {
  Pool& p = pool(self);
  const Selection s = {p.k,    *query, *pages, *tokens,  layout_of(p, pages->latent, pages->rope, pages->index),
                       chosen, counts, scores, ld_scores};
  if (tokens->n < 2 * p.threads.count()) {
    for (int64_t t = 0; t < tokens->n; t++) s.alone(p, t);
    return;
  }
  std::vector<int64_t> begins;
  for (int64_t t = 0; t < tokens->n; t++) {
    if (begins.empty() || t - begins.back() >= kQueryBlock || tokens->tables[t] != tokens->tables[begins.back()])
      begins.push_back(t);
  }
  begins.push_back(tokens->n);
  p.threads.each(static_cast<int64_t>(begins.size()) - 1,
                 [&](int64_t i) { s.block(begins[static_cast<size_t>(i)], begins[static_cast<size_t>(i) + 1]); });
}

}  // namespace sparrow::bf16
