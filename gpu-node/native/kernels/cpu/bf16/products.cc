// Matrix products, split over the threads by panels of rows.
#include <algorithm>

#include "pool.h"

namespace sparrow::bf16 {
Tiles::Tiles(const SpMatrix& w)
    : packed(view(w)),
      kind(input_kind(w)),
      blocks(ceil_div(w.rows / w.heads, SP_LANES)),
      rows(w.rows / w.heads),
      panels(ceil_div(blocks, SP_PANEL_BLOCKS)),
      heads(w.heads) {}

SpPanel Tiles::panel(int64_t index, bool together) const {
  const int64_t begin = together ? index * SP_PANEL_BLOCKS : index, step = together ? 1 : panels;
  const int64_t count =
      together ? std::min<int64_t>(SP_PANEL_BLOCKS, blocks - begin) : ceil_div(blocks - index, panels);
  const int64_t next = (together ? SP_PANEL_BLOCKS : 1) * packed.block_bytes;
  return {static_cast<int32_t>(begin), static_cast<int32_t>(step), static_cast<int32_t>(count),
          static_cast<int32_t>(rows - begin * SP_LANES), index + 1 < panels ? next : 0};
}

void Tiles::multiply(const SpBf16Kernels& k, const void* data, const SpPanel& panel, const Inputs& x, float* y,
                     int64_t ldy) const {
  SpPacked from = packed;
  from.data = static_cast<const uint8_t*>(data);
  y += panel.begin * SP_LANES;
  if (kind == InputKind::kCodes)
    k.gemm_codes(&from, &panel, &x.codes, y, ldy);
  else
    k.gemm_bf16(&from, &panel, &x.plain, y, ldy);
}

/// Sixteen rows an item.
template <class Body>
static void each_row(Pool& p, int64_t rows, const Body& body) {
  constexpr int64_t kRows = 16;
  p.threads.each(ceil_div(rows, kRows), [&](int64_t i) {
    for (int64_t r = i * kRows; r < std::min(rows, (i + 1) * kRows); r++) body(r);
  });
}

void round_rows(Pool& p, const float* x, int64_t ldx, int64_t rows, int64_t cols, uint16_t* half) {
  const int64_t ld = padded(cols);
  each_row(p, rows, [&](int64_t r) { p.k.to_bf16(x + r * ldx, cols, ceil_div(cols, 2) * 2, half + r * ld); });
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
  if (p.k.split_row && any(InputKind::kFull)) {
    const int64_t apart = n * ld;
    p.parts.resize(std::max(p.parts.size(), static_cast<size_t>(3 * apart)));
    each_row(p, n, [&](int64_t t) {
      p.k.split_row(x + t * cols, cols, ceil_div(cols, 2) * 2, apart, p.parts.data() + t * ld);
    });
    inputs.plain.parts = p.parts.data();
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
  p.products.clear();
  int64_t panels = 0;
  for (int32_t i = 0; i < count; i++) panels += p.products.emplace_back(*products[i].w).panels;
  p.threads.each(panels, [&](int64_t panel) {
    size_t i = 0;
    while (panel >= p.products[i].panels) panel -= p.products[i++].panels;
    const Tiles& w = p.products[i];
    w.multiply(p.k, w.packed.data, w.panel(panel, are_many(n)), inputs, products[i].y, w.rows);
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
  const bool codes = input_kind(*w) == InputKind::kCodes;
  if (codes) {
    // A head's rows lie together: the kernel takes them as one activation.
    p.codes.resize(int64_t{n} * w->heads, w->cols);
    const auto quantize = [&](int64_t h) {
      for (int64_t t = 0; t < n; t++) p.codes.set(p.k, h * n + t, x + t * ldx + h * ldh, w->cols, 0);
    };
    if (n > 2)
      p.threads.each(w->heads, quantize);
    else
      for (int64_t h = 0; h < w->heads; h++) quantize(h);
  }
  const Tiles tiles(*w);
  const int64_t panels = tiles.heads * tiles.panels, some = tiles.panels_an_item();
  p.threads.each(ceil_div(panels, some), [&](int64_t item) {
    for (int64_t panel = item * some; panel < std::min(panels, (item + 1) * some); panel++) {
      const int64_t h = panel / tiles.panels;
      Inputs own = inputs;
      if (own.plain.half) own.plain.half += h * ld;
      own.plain.full += h * ldh;
      if (codes) own.codes = p.codes.view(h * n, n);
      tiles.multiply(p.k, h, tiles.panel(panel % tiles.panels, are_many(n)), own, y + h * tiles.rows, w->rows);
    }
  });
}

}  // namespace sparrow::bf16
