// Fills the op table for the CPU: hot operations go to the chosen kernels, split over the threads; cheap ones are the
// reference's own loops.
#include "backend_cpu.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "../../backend/decode.h"
#include "../../backend/select.h"
#include "dispatch.h"
#include "threads.h"

namespace sparrow {
namespace {

struct Cpu {
  Cpu(const SpKernels* kernels, int threads) : kernels(kernels), threads(threads) {}
  const SpKernels* kernels;
  Threads threads;
};

Cpu& cpu(void* self) {
  return *static_cast<Cpu*>(self);
}

/// Rows an item covers: enough work to be worth handing out, little enough to share evenly.
int32_t rows_per_item(const SpMatrix& w, int32_t n) {
  const int64_t work = 32768 / std::max<int64_t>(1, static_cast<int64_t>(w.cols) * std::min(n, 8));
  return static_cast<int32_t>(std::clamp<int64_t>(work & ~int64_t{7}, 8, 256));
}

/// Rows [begin, end) of y = W x. The vector kernels know F32, BF16 and FP8; int8 and int4 rows are expanded first.
void multiply_rows(const SpKernels& k, const SpMatrix& w, const float* x, int64_t ldx, int32_t n, int32_t begin,
                   int32_t end, float* y, int64_t ldy) {
  if (w.dtype != SP_I8 && w.dtype != SP_I4) return k.matmul_rows(&w, x, ldx, n, begin, end, y, ldy);
  thread_local std::vector<float> plain;
  plain.resize(static_cast<size_t>(end - begin) * static_cast<size_t>(w.cols));
  for (int64_t r = begin; r < end; r++) {
    for (int64_t c = 0; c < w.cols; c++) plain[(r - begin) * w.cols + c] = static_cast<float>(weight_at(w, r, c));
  }
  SpMatrix rows = w;
  rows.data = plain.data(), rows.dtype = SP_F32, rows.scale = nullptr, rows.group = 0, rows.rows = end - begin;
  k.matmul_rows(&rows, x, ldx, n, 0, end - begin, y + begin, ldy);
}

/// Multiply-adds under which handing work to other threads costs more than it saves.
constexpr int64_t kInlineWork = 65536;

void product(void* self, const SpMatrix* w, const float* x, int32_t n, float* y) {
  if (static_cast<int64_t>(w->rows) * w->cols * n < kInlineWork)
    return multiply_rows(*cpu(self).kernels, *w, x, w->cols, n, 0, w->rows, y, w->rows);
  const int32_t step = rows_per_item(*w, n);
  cpu(self).threads.each((w->rows + step - 1) / step, [&](int64_t i) {
    const int32_t begin = static_cast<int32_t>(i) * step;
    multiply_rows(*cpu(self).kernels, *w, x, w->cols, n, begin, std::min(begin + step, w->rows), y, w->rows);
  });
}

void matmul(void* self, const SpProduct* products, int32_t count, const float* x, int32_t n) {
  for (int32_t i = 0; i < count; i++) product(self, products[i].w, x, n, products[i].y);
}

void matmul_heads(void* self, const SpMatrix* w, const float* x, int64_t ldx, int64_t ldh, int32_t n, float* y) {
  const int32_t heads = w->heads, out = w->rows / heads;
  const std::function<void(int64_t)> head = [&](int64_t h) {
    const int32_t begin = static_cast<int32_t>(h) * out;
    multiply_rows(*cpu(self).kernels, *w, x + h * ldh, ldx, n, begin, begin + out, y, w->rows);
  };
  if (static_cast<int64_t>(w->rows) * w->cols * n >= kInlineWork) return cpu(self).threads.each(heads, head);
  for (int64_t h = 0; h < heads; h++) head(h);
}

void swiglu_row(float* gate, const float* up, int64_t count) {
  for (int64_t i = 0; i < count; i++) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
}

void swiglu(void* self, float* gate, const float* up, int64_t count) {
  constexpr int64_t kStep = 8192;
  cpu(self).threads.each((count + kStep - 1) / kStep, [&](int64_t i) {
    swiglu_row(gate + i * kStep, up + i * kStep, std::min(kStep, count - i * kStep));
  });
}

/// Tokens of one expert, gathered so that its weights are read once.
struct ExpertBatch {
  std::vector<float> x, gate, up, out;
  std::vector<int32_t> slots;  // token * top_k + slot
};

void run_expert(const SpKernels& k, const SpExperts& e, int64_t id, const float* x, ExpertBatch& b) {
  const int32_t n = static_cast<int32_t>(b.slots.size()), inter = e.gate[id].rows, hidden = e.gate[id].cols;
  b.x.resize(static_cast<size_t>(n) * hidden);
  b.gate.resize(static_cast<size_t>(n) * inter);
  b.up.resize(b.gate.size());
  b.out.resize(b.x.size());
  for (int64_t i = 0; i < n; i++)
    std::copy_n(x + static_cast<int64_t>(b.slots[i] / e.top_k) * hidden, hidden, b.x.data() + i * hidden);
  multiply_rows(k, e.gate[id], b.x.data(), hidden, n, 0, inter, b.gate.data(), inter);
  multiply_rows(k, e.up[id], b.x.data(), hidden, n, 0, inter, b.up.data(), inter);
  swiglu_row(b.gate.data(), b.up.data(), static_cast<int64_t>(b.gate.size()));
  multiply_rows(k, e.down[id], b.gate.data(), inter, n, 0, hidden, b.out.data(), hidden);
}

void experts(void* self, const SpExperts* e, const float* x, const int32_t* ids, const float* weights, int32_t n,
             float* y) {
  const int64_t hidden = e->gate[0].cols, slots = static_cast<int64_t>(n) * e->top_k;
  std::vector<ExpertBatch> batches(e->experts);
  std::vector<int64_t> used, row_of(slots);
  for (int64_t s = 0; s < slots; s++) {
    if (batches[ids[s]].slots.empty()) used.push_back(ids[s]);
    row_of[s] = static_cast<int64_t>(batches[ids[s]].slots.size());
    batches[ids[s]].slots.push_back(static_cast<int32_t>(s));
  }
  cpu(self).threads.each(static_cast<int64_t>(used.size()),
                         [&](int64_t i) { run_expert(*cpu(self).kernels, *e, used[i], x, batches[used[i]]); });
  cpu(self).threads.each(n, [&](int64_t t) {
    for (int64_t s = t * e->top_k; s < (t + 1) * e->top_k; s++) {
      const float* out = batches[ids[s]].out.data() + row_of[s] * hidden;
      for (int64_t i = 0; i < hidden; i++) y[t * hidden + i] += weights[s] * out[i];
    }
  });
}

/// Scores of pages [first, last) of token t.
void score_pages(const SpKernels& k, const SpIndexQuery& query, const SpPages& pages, const SpTokens& tokens, int64_t t,
                 int64_t first, int64_t last, float* scores) {
  const int64_t length = tokens.positions[t] + 1;
  for (int64_t p = first; p < last; p++) {
    const int32_t count = static_cast<int32_t>(std::min<int64_t>(SP_PAGE_TOKENS, length - p * SP_PAGE_TOKENS));
    k.index_scores(query.q + t * query.heads * query.dim, query.w + t * query.heads, query.heads, query.dim,
                   index_row(pages, tokens.tables[t], p * SP_PAGE_TOKENS), count, scores + p * SP_PAGE_TOKENS);
  }
}

void index_select(void* self, const SpIndexQuery* query, const SpPages* pages, const SpTokens* tokens, int32_t* chosen,
                  int32_t* counts, float* scores, int64_t ld_scores) {
  // Few tokens (decode): the threads share one token's pages. Many (prefill): each thread takes whole tokens.
  constexpr int64_t kPages = 8;
  const auto finish = [&](int64_t t, std::vector<float>& row) {
    if (scores) std::copy(row.begin(), row.end(), scores + t * ld_scores);
    counts[t] = select_top_k(row.data(), static_cast<int64_t>(row.size()), query->top_k, chosen + t * query->top_k);
  };
  const auto page_count = [&](int64_t t) { return (tokens->positions[t] + SP_PAGE_TOKENS) / SP_PAGE_TOKENS; };
  if (tokens->n < 2 * cpu(self).threads.count()) {
    std::vector<float> row;
    for (int64_t t = 0; t < tokens->n; t++) {
      row.resize(tokens->positions[t] + 1);
      cpu(self).threads.each((page_count(t) + kPages - 1) / kPages, [&](int64_t i) {
        score_pages(*cpu(self).kernels, *query, *pages, *tokens, t, i * kPages,
                    std::min<int64_t>((i + 1) * kPages, page_count(t)), row.data());
      });
      finish(t, row);
    }
    return;
  }
  cpu(self).threads.each(tokens->n, [&](int64_t t) {
    thread_local std::vector<float> row;
    row.resize(tokens->positions[t] + 1);
    score_pages(*cpu(self).kernels, *query, *pages, *tokens, t, 0, page_count(t), row.data());
    finish(t, row);
  });
}

void attend(void* self, const SpAttention* a, const SpPages* pages, const SpTokens* tokens, float* z) {
  cpu(self).threads.each(static_cast<int64_t>(tokens->n) * a->heads, [&](int64_t item) {
    thread_local std::vector<float> scratch;
    const int64_t t = item / a->heads;
    const int32_t count = a->chosen ? a->counts[t] : tokens->positions[t] + 1;
    if (static_cast<int64_t>(scratch.size()) < count) scratch.resize(count);
    const SpAttendHead head = {a->q_latent + item * pages->latent,
                               a->q_rope + item * pages->rope,
                               a->chosen ? a->chosen + t * a->top_k : nullptr,
                               tokens->tables[t],
                               count,
                               a->scale,
                               scratch.data(),
                               z + item * pages->latent};
    cpu(self).kernels->attend_head(&head, pages);
  });
}

void each(void* self, int64_t items, Threads::Call body, const void* context) {
  cpu(self).threads.run(items, body, context);
}

}  // namespace

Result<Backend> open_cpu_backend(const std::string& isa, int threads) {
  const SpKernels* kernels = kernels_for(isa);
  if (!kernels)
    return error(Code::kBadArgument, "isa '" + isa + "' does not run on this processor; these do: " + supported_isas());
  auto owner = std::make_shared<Cpu>(kernels, threads);
  SpBackend table = reference_backend();
  table.name = "cpu";
  table.isa = kernels->isa;
  table.self = owner.get();
  table.matmul = matmul;
  table.matmul_heads = matmul_heads;
  table.swiglu = swiglu;
  table.experts = experts;
  table.index_select = index_select;
  table.attend = attend;
  table.attend_expanded = nullptr;
  table.each = each;
  return Backend{table, owner};
}

}  // namespace sparrow
