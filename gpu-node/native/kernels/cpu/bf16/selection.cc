// Exact top-k while scoring: only scores above the k-th best so far are kept, so no row of scores reaches memory. A
// block of queries shares each page of keys; few queries share the pages among the threads. Equal scores: lower
// position.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "pool.h"

namespace sparrow::bf16 {
namespace {

constexpr int64_t kQueryBlock = 16;

/// The best of the positions offered so far, in ascending order; more than `k` between two clean-ups.
class Candidates {
 public:
  void start(int32_t k) {
    k_ = k;
    size_ = 0;
    floor_ = -std::numeric_limits<float>::infinity();
    const size_t capacity = std::max<size_t>(4 * static_cast<size_t>(k), 1024) + SP_PAGE_TOKENS + SP_LANES;
    if (scores_.size() < capacity) scores_.resize(capacity), positions_.resize(capacity);
    limit_ = static_cast<int32_t>(scores_.size()) - SP_PAGE_TOKENS - SP_LANES;
  }

  void offer(const float* scores, int32_t count, int32_t first) {
    size_ += sp_append_above(scores, count, floor_, first, scores_.data() + size_, positions_.data() + size_);
    if (size_ > limit_) keep_best();
  }

  void keep_best() {
    if (size_ <= k_) return;
    copy_.assign(scores_.begin(), scores_.begin() + size_);
    std::nth_element(copy_.begin(), copy_.begin() + (k_ - 1), copy_.end(), std::greater<>());
    floor_ = copy_[static_cast<size_t>(k_ - 1)];
    int64_t ties = k_ - std::count_if(copy_.begin(), copy_.begin() + k_, [&](float v) { return v > floor_; });
    int32_t out = 0;
    for (int32_t i = 0; i < size_; i++) {
      const float s = scores_[static_cast<size_t>(i)];
      if (!(s > floor_ || (s == floor_ && ties-- > 0))) continue;
      scores_[static_cast<size_t>(out)] = s;
      positions_[static_cast<size_t>(out++)] = positions_[static_cast<size_t>(i)];
    }
    size_ = out;
  }

  /// Appends another's candidates, all of later positions.
  void take(const Candidates& later) {
    for (int32_t i = 0; i < later.size_; i++) {
      if (size_ >= limit_) keep_best();
      scores_[static_cast<size_t>(size_)] = later.scores_[static_cast<size_t>(i)];
      positions_[static_cast<size_t>(size_++)] = later.positions_[static_cast<size_t>(i)];
    }
  }

  int32_t finish(int32_t* chosen) {
    keep_best();
    std::copy_n(positions_.begin(), size_, chosen);
    return size_;
  }

 private:
  std::vector<float> scores_, copy_;
  std::vector<int32_t> positions_;
  int32_t k_ = 0, size_ = 0, limit_ = 0;
  float floor_ = 0;
};

/// One query quantised, with memory that stays.
struct Heads {
  std::vector<int8_t> q;
  std::vector<float> w;
  std::vector<int32_t> start;
  SpIndexHeads view;
  void load(const SpIndexQuery& query, int64_t token, int64_t quads) {
    q.resize(static_cast<size_t>(query.heads * quads * 4));
    w.resize(static_cast<size_t>(query.heads));
    start.resize(w.size());
    view = {q.data(), w.data(), start.data(), query.heads};
    sp_quantize_index_query(query.q + token * query.heads * query.dim, query.w + token * query.heads, query.dim, quads,
                            &view);
  }
};

struct Selection {
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

  void score_page(const Heads& heads, int64_t t, int64_t page, Candidates& best) const {
    alignas(64) float row[SP_PAGE_TOKENS];
    const int32_t first = static_cast<int32_t>(page * SP_PAGE_TOKENS);
    const int32_t count = std::min<int32_t>(SP_PAGE_TOKENS, length(t) - first);
    sp_index_page(&heads.view, &layout, pages.base + pages.page_stride * tokens.tables[t][page], row);
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
      heads[static_cast<size_t>(t - begin)].load(query, t, layout.index_quads);
      best[static_cast<size_t>(t - begin)].start(query.top_k);
      pages_seen = std::max<int64_t>(pages_seen, ceil_div(length(t), SP_PAGE_TOKENS));
    }
    for (int64_t page = 0; page < pages_seen; page++) {
      for (int64_t t = begin; t < end; t++) {
        if (page * SP_PAGE_TOKENS >= length(t) || (length(t) <= query.top_k && !scores)) continue;
        score_page(heads[static_cast<size_t>(t - begin)], t, page, best[static_cast<size_t>(t - begin)]);
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
    heads.load(query, t, layout.index_quads);
    const int64_t all = ceil_div(length(t), SP_PAGE_TOKENS),
                  share = std::max<int64_t>(8, ceil_div(all, p.threads.count()));
    const int64_t shares = ceil_div(all, share);
    if (best.size() < static_cast<size_t>(shares)) best.resize(static_cast<size_t>(shares));
    p.threads.each(shares, [&](int64_t i) {
      Candidates& mine = best[static_cast<size_t>(i)];
      mine.start(query.top_k);
      for (int64_t page = i * share; page < std::min(all, (i + 1) * share); page++) score_page(heads, t, page, mine);
      mine.keep_best();
    });
    for (int64_t i = 1; i < shares; i++) best[0].take(best[static_cast<size_t>(i)]);
    counts[t] = best[0].finish(chosen + t * query.top_k);
  }
};

}  // namespace

void index_select(void* self, const SpIndexQuery* query, const SpPages* pages, const SpTokens* tokens, int32_t* chosen,
                  int32_t* counts, float* scores, int64_t ld_scores) {
  Pool& p = pool(self);
  const Selection s = {*query, *pages, *tokens, layout_of(pages->latent, pages->rope, pages->index),
                       chosen, counts, scores,  ld_scores};
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
