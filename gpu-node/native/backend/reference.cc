// The reference backend: every operation as plain loops with double accumulators. The definition of right; never tuned.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "decode.h"
#include "registry.h"
#include "select.h"

namespace sparrow {
namespace {

int64_t row_bytes(void*, int32_t latent, int32_t rope) {
  return float_row_bytes(latent, rope);
}

int64_t key_bytes(void*, int32_t index) {
  return float_key_bytes(index);
}

int64_t pack(void*, const SpMatrix*, void*) {
  return 0;
}

void embed(void*, const SpMatrix* table, const int32_t* ids, int32_t n, float* y) {
  for (int64_t t = 0; t < n; t++) {
    for (int64_t i = 0; i < table->cols; i++) y[t * table->cols + i] = static_cast<float>(weight_at(*table, ids[t], i));
  }
}

void rms_norm(void*, const float* x, int64_t ldx, const float* gain, int32_t n, int32_t dim, float eps, float* y,
              int64_t ldy) {
  for (int64_t t = 0; t < n; t++) {
    double sum = 0;
    for (int i = 0; i < dim; i++) sum += static_cast<double>(x[t * ldx + i]) * x[t * ldx + i];
    const double scale = 1 / std::sqrt(sum / dim + eps);
    for (int i = 0; i < dim; i++) y[t * ldy + i] = static_cast<float>(x[t * ldx + i] * scale * gain[i]);
  }
}

void layer_norm(void*, const float* x, const float* gain, const float* bias, int32_t n, int32_t dim, float eps,
                float* y) {
  for (int64_t t = 0; t < n; t++, x += dim, y += dim) {
    double mean = 0, var = 0;
    for (int i = 0; i < dim; i++) mean += x[i];
    mean /= dim;
    for (int i = 0; i < dim; i++) var += (x[i] - mean) * (x[i] - mean);
    const double scale = 1 / std::sqrt(var / dim + eps);
    for (int i = 0; i < dim; i++) y[i] = static_cast<float>((x[i] - mean) * scale * gain[i] + bias[i]);
  }
}

double dot_row(const SpMatrix& w, int64_t row, const float* x) {
  double sum = 0;
  for (int64_t k = 0; k < w.cols; k++) sum += weight_at(w, row, k) * x[k];
  return sum;
}

void matmul(void*, const SpProduct* products, int32_t count, const float* x, int32_t n) {
  for (const SpProduct& p : std::span(products, static_cast<size_t>(count))) {
    for (int64_t t = 0; t < n; t++) {
      for (int64_t r = 0; r < p.w->rows; r++)
        p.y[t * p.w->rows + r] = static_cast<float>(dot_row(*p.w, r, x + t * p.w->cols));
    }
  }
}

void matmul_heads(void*, const SpMatrix* w, const float* x, int64_t ldx, int64_t ldh, int32_t n, float* y) {
  const int64_t out = w->rows / w->heads;
  for (int64_t t = 0; t < n; t++) {
    for (int64_t r = 0; r < w->rows; r++)
      y[t * w->rows + r] = static_cast<float>(dot_row(*w, r, x + t * ldx + r / out * ldh));
  }
}

void rope(void*, float* x, const int32_t* positions, int32_t n, int32_t heads, int64_t ld_token, int64_t ld_head,
          int32_t dim, const float* table, int32_t half_split) {
  const int half = dim / 2;
  for (int64_t t = 0; t < n; t++) {
    const float* cosine = table + static_cast<int64_t>(positions[t]) * dim;
    for (int64_t h = 0; h < heads; h++) {
      float* v = x + t * ld_token + h * ld_head;
      for (int i = 0; i < half; i++) {
        float &a = half_split ? v[i] : v[2 * i], &b = half_split ? v[i + half] : v[2 * i + 1];
        const double c = cosine[i], s = cosine[half + i], p = a, q = b;
        a = static_cast<float>(p * c - q * s);
        b = static_cast<float>(p * s + q * c);
      }
    }
  }
}

void add(void*, float* x, const float* y, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] += y[i];
}

void swiglu(void*, float* gate, const float* up, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    const double g = gate[i];
    gate[i] = static_cast<float>(g / (1 + std::exp(-g)) * up[i]);
  }
}

void scores_of(const SpGate& g, const float* logits, std::vector<double>& score) {
  const double top = *std::max_element(logits, logits + g.experts);
  double sum = 0;
  for (int e = 0; e < g.experts; e++) {
    score[e] = g.sigmoid ? 1 / (1 + std::exp(-static_cast<double>(logits[e]))) : std::exp(logits[e] - top);
    sum += score[e];
  }
  if (!g.sigmoid)
    for (double& s : score) s /= sum;
}

/// Masks every group but the best `top_groups` with -infinity (never with 0: biased scores may be negative).
void mask_groups(const SpGate& g, std::vector<double>& biased) {
  const int size = g.experts / g.groups;
  std::vector<double> value(g.groups);
  std::vector<int> order(g.groups);
  std::iota(order.begin(), order.end(), 0);
  for (int i = 0; i < g.groups; i++) {
    std::vector<double> in(biased.begin() + i * size, biased.begin() + (i + 1) * size);
    std::sort(in.rbegin(), in.rend());
    value[i] = g.group_by_top2 ? in[0] + in[1] : in[0];
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return value[a] > value[b]; });
  for (int i = g.top_groups; i < g.groups; i++) {
    std::fill_n(biased.begin() + order[i] * size, size, -std::numeric_limits<double>::infinity());
  }
}

void gate(void*, const SpGate* g, const float* logits, int32_t n, int32_t* ids, float* weights) {
  std::vector<double> score(g->experts), biased(g->experts);
  std::vector<int32_t> order(g->experts);
  for (int64_t t = 0; t < n; t++, logits += g->experts, ids += g->top_k, weights += g->top_k) {
    scores_of(*g, logits, score);
    for (int e = 0; e < g->experts; e++) {
      biased[e] = score[e] + (g->bias ? g->bias[e] : 0);
      // A NaN has no place in an order, and sorting one may leave the array. Chosen after all, it weighs NaN.
      if (std::isnan(biased[e])) biased[e] = -std::numeric_limits<double>::infinity();
    }
    if (g->groups > 1) mask_groups(*g, biased);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + g->top_k, order.end(),
                      [&](int a, int b) { return biased[a] > biased[b] || (biased[a] == biased[b] && a < b); });
    double sum = 0;
    for (int k = 0; k < g->top_k; k++) sum += score[order[k]];
    for (int k = 0; k < g->top_k; k++) {
      ids[k] = order[k];
      weights[k] = static_cast<float>(score[order[k]] / (g->normalize ? sum + 1e-20 : 1) * g->factor);
    }
  }
}

void experts(void*, const SpExperts* e, const float* x, const int32_t* ids, const float* weights, int32_t n, float* y) {
  const int inter = e->gate[0].rows, hidden = e->gate[0].cols;
  std::vector<float> inner(inter);
  for (int64_t t = 0; t < n; t++) {
    std::vector<double> sum(hidden);
    for (int k = 0; k < e->top_k; k++) {
      const int id = ids[t * e->top_k + k];
      for (int i = 0; i < inter; i++) {
        const double g = dot_row(e->gate[id], i, x + t * hidden), u = dot_row(e->up[id], i, x + t * hidden);
        inner[i] = static_cast<float>(g / (1 + std::exp(-g)) * u);
      }
      for (int i = 0; i < hidden; i++) sum[i] += weights[t * e->top_k + k] * dot_row(e->down[id], i, inner.data());
    }
    for (int i = 0; i < hidden; i++) y[t * hidden + i] += static_cast<float>(sum[i]);
  }
}

void cache_write(void*, const SpPages* pages, const SpTokens* tokens, const float* latent, const float* rope,
                 const float* index) {
  for (int64_t t = 0; t < tokens->n; t++) {
    const int32_t* table = tokens->tables[t];
    const int64_t at = tokens->positions[t];
    std::copy_n(latent + t * pages->latent, pages->latent, latent_row(*pages, table, at));
    std::copy_n(rope + t * pages->rope, pages->rope, rope_row(*pages, table, at));
    if (index) std::copy_n(index + t * pages->index, pages->index, index_row(*pages, table, at));
  }
}

void index_select(void*, const SpIndexQuery* query, const SpPages* pages, const SpTokens* tokens, int32_t* chosen,
                  int32_t* counts, float* scores, int64_t ld_scores) {
  std::vector<float> row;
  for (int64_t t = 0; t < tokens->n; t++) {
    const int64_t length = tokens->positions[t] + 1;
    row.assign(length, 0);
    for (int64_t s = 0; s < length; s++) {
      const float* key = index_row(*pages, tokens->tables[t], s);
      double sum = 0;
      for (int64_t j = 0; j < query->heads; j++) {
        double dot = 0;
        for (int i = 0; i < query->dim; i++)
          dot += static_cast<double>(query->q[(t * query->heads + j) * query->dim + i]) * key[i];
        sum += query->w[t * query->heads + j] * std::max(dot, 0.0);
      }
      row[s] = static_cast<float>(sum);
    }
    if (scores) std::copy(row.begin(), row.end(), scores + t * ld_scores);
    counts[t] = select_top_k(row.data(), length, query->top_k, chosen + t * query->top_k);
  }
}

void attend(void*, const SpAttention* a, const SpPages* pages, const SpTokens* tokens, float* z) {
  std::vector<double> p, sum(pages->latent);
  for (int64_t t = 0; t < tokens->n; t++) {
    const int32_t* table = tokens->tables[t];
    const int64_t count = a->chosen ? a->counts[t] : tokens->positions[t] + 1;
    const auto position = [&](int64_t j) -> int64_t { return a->chosen ? a->chosen[t * a->top_k + j] : j; };
    for (int64_t h = 0; h < a->heads; h++) {
      const float *ql = a->q_latent + (t * a->heads + h) * pages->latent,
                  *qr = a->q_rope + (t * a->heads + h) * pages->rope;
      double top = -std::numeric_limits<double>::infinity(), total = 0;
      p.assign(count, 0);
      for (int64_t j = 0; j < count; j++) {
        const float *c = latent_row(*pages, table, position(j)), *k = rope_row(*pages, table, position(j));
        for (int i = 0; i < pages->latent; i++) p[j] += static_cast<double>(ql[i]) * c[i];
        for (int i = 0; i < pages->rope; i++) p[j] += static_cast<double>(qr[i]) * k[i];
        p[j] *= a->scale;
        top = std::max(top, p[j]);
      }
      std::fill(sum.begin(), sum.end(), 0);
      for (int64_t j = 0; j < count; j++) {
        const double e = std::exp(p[j] - top);
        total += e;
        const float* c = latent_row(*pages, table, position(j));
        for (int i = 0; i < pages->latent; i++) sum[i] += e * c[i];
      }
      for (int i = 0; i < pages->latent; i++)
        z[(t * a->heads + h) * pages->latent + i] = static_cast<float>(sum[i] / total);
    }
  }
}

/// Keys (heads, nope) and values (heads, v) of position s.
void expand_row(const SpExpanded& a, const SpPages& pages, const int32_t* table, int64_t s, double* key,
                double* value) {
  const float* c = latent_row(pages, table, s);
  for (int64_t r = 0; r < a.heads * a.nope; r++) key[r] = dot_row(*a.uk, r, c);
  for (int64_t r = 0; r < a.heads * a.v; r++) value[r] = dot_row(*a.uv, r, c);
}

void attend_expanded(void*, const SpExpanded* a, const SpPages* pages, const SpTokens* tokens, float* out) {
  const int64_t keys = *std::max_element(tokens->positions, tokens->positions + tokens->n) + 1;
  const int64_t heads = a->heads, nope = a->nope, v = a->v, dim = nope + pages->rope;
  std::vector<double> key(keys * heads * nope), value(keys * heads * v), p, sum(v);
  for (int64_t s = 0; s < keys; s++)
    expand_row(*a, *pages, tokens->tables[0], s, &key[s * heads * nope], &value[s * heads * v]);
  for (int64_t t = 0; t < tokens->n; t++) {
    const int64_t count = a->chosen ? a->counts[t] : tokens->positions[t] + 1;
    const auto position = [&](int64_t j) -> int64_t { return a->chosen ? a->chosen[t * a->top_k + j] : j; };
    for (int64_t h = 0; h < heads; h++) {
      const float* q = a->q + (t * heads + h) * dim;
      double top = -std::numeric_limits<double>::infinity(), total = 0;
      p.assign(count, 0);
      for (int64_t j = 0; j < count; j++) {
        const float* k = rope_row(*pages, tokens->tables[0], position(j));
        for (int64_t i = 0; i < nope; i++) p[j] += q[i] * key[(position(j) * heads + h) * nope + i];
        for (int64_t i = 0; i < pages->rope; i++) p[j] += static_cast<double>(q[nope + i]) * k[i];
        p[j] *= a->scale;
        top = std::max(top, p[j]);
      }
      std::fill(sum.begin(), sum.end(), 0);
      for (int64_t j = 0; j < count; j++) {
        const double e = std::exp(p[j] - top);
        total += e;
        for (int64_t i = 0; i < v; i++) sum[i] += e * value[(position(j) * heads + h) * v + i];
      }
      for (int64_t i = 0; i < v; i++) out[(t * heads + h) * v + i] = static_cast<float>(sum[i] / total);
    }
  }
}

}  // namespace

SpBackend reference_backend() {
  return {SP_BACKEND_ABI, "reference", "reference",     nullptr, row_bytes, key_bytes, pack, embed,   rms_norm,
          layer_norm,     matmul,      matmul_heads,    rope,    add,       swiglu,    gate, experts, cache_write,
          index_select,   attend,      attend_expanded, nullptr};
}

}  // namespace sparrow
