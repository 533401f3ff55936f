// Matrix products, split over the threads by panels of rows.
#include <algorithm>

#include "pool.h"

namespace sparrow::bf16 {
namespace {

/// Panels of a matrix, never of two heads.
int64_t panel_count(const SpMatrix& w) {
  return w.heads * head_panels(w);
}

/// Panel `index` of w for inputs x, where head h reads its own columns `h * head_step` further on.
void run_panel(const SpBf16Kernels& k, const SpMatrix& w, int64_t index, Inputs x, int64_t half_step, int64_t full_step,
               float* y) {
  const int64_t per_head = head_panels(w), h = index / per_head;
  if (x.plain.half) x.plain.half += h * half_step;
  x.plain.full += h * full_step;
  multiply(k, w, h, panel_of(w, index % per_head), x, y + h * (w.rows / w.heads), w.rows);
}

}  // namespace

int64_t head_panels(const SpMatrix& w) {
  return ceil_div(head_blocks(w), SP_PANEL_BLOCKS);
}

SpPanel panel_of(const SpMatrix& w, int64_t index) {
  const int64_t panels = head_panels(w), rows = w.rows / w.heads - index * SP_LANES;
  const int64_t next = index + 1 < panels ? view(w).block_bytes : 0;
  return {static_cast<int32_t>(index), static_cast<int32_t>(panels),
          static_cast<int32_t>(ceil_div(head_blocks(w) - index, panels)), static_cast<int32_t>(rows), next};
}

void multiply(const SpBf16Kernels& k, const SpMatrix& w, int64_t h, const SpPanel& panel, const Inputs& x, float* y,
              int64_t ldy) {
  SpPacked packed = view(w);
  packed.data += h * head_blocks(w) * packed.block_bytes;
  y += panel.begin * SP_LANES;
  if (input_kind(w) == InputKind::kCodes)
    k.gemm_codes(&packed, &panel, &x.codes, y, ldy);
  else
    k.gemm_bf16(&packed, &panel, &x.plain, y, ldy);
}

void round_rows(Pool& p, const float* x, int64_t ldx, int64_t rows, int64_t cols, uint16_t* half) {
  constexpr int64_t kRows = 16;
  const int64_t ld = padded(cols);
  const auto some = [&](int64_t i) {
    for (int64_t r = i * kRows; r < std::min(rows, (i + 1) * kRows); r++)
      p.k.to_bf16(x + r * ldx, cols, ceil_div(cols, 2) * 2, half + r * ld);
  };
  p.threads.each(ceil_div(rows, kRows), some);
}

void CodeRows::resize(int64_t rows, int64_t cols) {
  ld = stretched(cols);
  const auto grow = [](auto& v, int64_t size) {
    if (v.size() < static_cast<size_t>(size)) v.resize(static_cast<size_t>(size));
  };
  grow(codes, rows * ld);
  grow(scales, rows * ld / SP_STRETCH);
  grow(sums, rows * ld / SP_STRETCH);
}

void CodeRows::set(const SpBf16Kernels& k, int64_t row, const float* x, int64_t cols, int64_t at) {
  const int64_t stretch = (row * ld + at) / SP_STRETCH;
  k.quantize_row(x, cols, codes.data() + row * ld + at, scales.data() + stretch, sums.data() + stretch);
}

void CodeRows::copy(int64_t row, const CodeRows& from, int64_t from_row) {
  const int64_t stretches = ld / SP_STRETCH;
  std::copy_n(from.codes.data() + from_row * ld, ld, codes.data() + row * ld);
  std::copy_n(from.scales.data() + from_row * stretches, stretches, scales.data() + row * stretches);
  std::copy_n(from.sums.data() + from_row * stretches, stretches, sums.data() + row * stretches);
}

SpCodes CodeRows::view(int64_t row, int32_t n) const {
  const int64_t stretches = ld / SP_STRETCH;
  return {codes.data() + row * ld, scales.data() + row * stretches, sums.data() + row * stretches, ld, n};
}

void matmul(void* self, const SpProduct* products, int32_t count, const float* x, int32_t n) {
  Pool& p = pool(self);
  const int64_t cols = products[0].w->cols, ld = padded(cols);
  const auto any = [&](InputKind kind) {
    return std::any_of(products, products + count, [&](const SpProduct& q) { return input_kind(*q.w) == kind; });
  };
  Inputs inputs = {{nullptr, x, ld, cols, n, nullptr}, {}};
  if (p.k.rounds && any(InputKind::kHalf)) {
    p.half.resize(std::max(p.half.size(), static_cast<size_t>(n * ld)));
    round_rows(p, x, cols, n, cols, p.half.data());
    inputs.plain.half = p.half.data();
  }
  if (any(InputKind::kCodes)) {
    constexpr int64_t kRows = 4;
    p.codes.resize(n, cols);
    p.threads.each(ceil_div(n, kRows), [&](int64_t i) {
      for (int64_t t = i * kRows; t < std::min<int64_t>(n, (i + 1) * kRows); t++)
        p.codes.set(p.k, t, x + t * cols, cols, 0);
    });
    inputs.codes = p.codes.view(0, n);
  }
  int64_t panels = 0;
  for (int32_t i = 0; i < count; i++) panels += panel_count(*products[i].w);
  p.threads.each(panels, [&](int64_t panel) {
    const SpProduct* at = products;
    while (panel >= panel_count(*at->w)) panel -= panel_count(*at++->w);
    run_panel(p.k, *at->w, panel, inputs, 0, 0, at->y);
  });
}

void matmul_heads(void* self, const SpMatrix* w, const float* x, int64_t ldx, int64_t ldh, int32_t n, float* y) {
  Pool& p = pool(self);
  const int64_t ld = padded(w->cols);
  Inputs inputs = {{nullptr, x, ld * w->heads, ldx, n, nullptr}, {}};
  if (p.k.rounds && input_kind(*w) == InputKind::kHalf) {
    p.half.resize(std::max(p.half.size(), static_cast<size_t>(n * w->heads * ld)));
    p.threads.each(n, [&](int64_t t) {
      for (int64_t h = 0; h < w->heads; h++)
        p.k.to_bf16(x + t * ldx + h * ldh, w->cols, ceil_div(w->cols, 2) * 2, p.half.data() + (t * w->heads + h) * ld);
    });
    inputs.plain.half = p.half.data();
  }
  p.threads.each(panel_count(*w), [&](int64_t panel) { run_panel(p.k, *w, panel, inputs, ld, ldh, y); });
}

}  // namespace sparrow::bf16
