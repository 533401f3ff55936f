// The matrix product: exact on dyadic fixtures, every code of e4m3 through an identity, and sides that are no multiple
// of any lane, tile or scale block.
#include <algorithm>
#include <cmath>

#include "../../../gpu-node/native/backend/decode.h"
#include "ops.h"

namespace sparrow::test {
namespace {

void product(Check& check, const std::string& what, const TestMatrix& w, const std::vector<float>& x, int32_t n,
             const std::vector<float>& want) {
  const SpBackend& b = check.backend();
  Guarded<float> y(int64_t{n} * w.on(b)->rows);
  multiply(b, w.on(b), x.data(), n, y.data());
  check.near(what, y.take(), want, 0);
}

/// FP8 weights are exact, too; but a backend that rounds may hold them as int8. Then weight and activation are each off
/// by half a step of the largest of their row (1/254, and 1/256 for the multiplier's BF16).
void fp8_product(Check& check, const std::string& what, const TestMatrix& w, const std::vector<float>& x, int32_t n,
                 const std::vector<float>& want) {
  if (!check.rounds()) return product(check, what, w, x, n, want);
  const SpBackend& b = check.backend();
  const SpMatrix& m = w.plain();
  Guarded<float> out(int64_t{n} * m.rows);
  multiply(b, w.on(b), x.data(), n, out.data());
  const std::vector<float> y = out.take();
  constexpr double kStep = 1.0 / 254 + 1.0 / 256;
  for (int32_t t = 0; t < n; t++) {
    for (int32_t r = 0; r < m.rows; r++) {
      double w_most = 0, w_sum = 0, x_most = 0, x_sum = 0;
      for (int32_t c = 0; c < m.cols; c++) {
        const double weight = std::fabs(weight_at(m, r, c)), value = std::fabs(x[static_cast<size_t>(t * m.cols + c)]);
        w_most = std::max(w_most, weight), w_sum += weight, x_most = std::max(x_most, value), x_sum += value;
      }
      const size_t at = static_cast<size_t>(t * m.rows + r);
      const double off = std::fabs(static_cast<double>(y[at]) - want[at]);
      check.that(what + " " + std::to_string(at) + " within int8", off <= kStep * (w_most * x_sum + x_most * w_sum));
    }
  }
}

void fixtures(Check& check) {
  const Fixtures& f = check.fixtures;
  for (const bool exact : {false, true}) {
    product(check, "bf16.y", TestMatrix(SP_BF16, 37, 96, f.bytes("matmul/bf16.w"), {}, exact),
            f.floats("matmul/bf16.x"), 5, f.floats("matmul/bf16.y"));
  }
  fp8_product(check, "fp8.y",
              TestMatrix(SP_F8_E4M3, 137, 200, f.bytes("matmul/fp8.w"), f.floats("matmul/fp8.w_scale_inv"), false),
              f.floats("matmul/fp8.x"), 3, f.floats("matmul/fp8.y"));
  std::vector<float> identity(16 * 16), codes = f.floats("numbers/e4m3.values"), turned(16 * 16);
  for (size_t i = 0; i < 16; i++) {
    identity[i * 17] = 1;
    for (size_t j = 0; j < 16; j++) turned[i * 16 + j] = codes[j * 16 + i];
  }
  const TestMatrix e4m3(SP_F8_E4M3, 16, 16, f.bytes("numbers/e4m3.codes"), {1}, false);
  fp8_product(check, "every e4m3 code", e4m3, identity, 16, turned);
  // Subnormal weights only where activations are exact too: BF16 instructions flush them.
  product(check, "bf16 codes", TestMatrix(SP_BF16, 1, 16, f.bytes("numbers/bf16.codes"), {}, true), identity, 16,
          f.floats("numbers/bf16.values"));
}

}  // namespace

void test_matmul(Check& check) {
  fixtures(check);
  Random random(4), others(5);
  // A NaN among the activations must not get lost in rounding, whatever the weights are.
  for (const int32_t dtype : kDTypes) {
    const TestMatrix w = TestMatrix::random(others, dtype, 16, 96, false);
    auto x = others.normals(96);
    x[40] = std::nanf("");
    Guarded<float> y(16);
    multiply(check.backend(), w.on(check.backend()), x.data(), 1, y.data());
    const std::vector<float> out = y.take();
    check.that(std::string(dtype_name(dtype)) + ": NaN stays",
               std::ranges::all_of(out, [](float v) { return std::isnan(v); }));
  }
  const std::pair<int32_t, int32_t> sides[] = {{1, 1},    {3, 7},    {16, 16},   {17, 31},  {37, 96},   {2, 127},
                                               {5, 128},  {64, 129}, {129, 64},  {31, 256}, {130, 257}, {137, 200},
                                               {257, 48}, {4, 1000}, {144, 384}, {1, 515}};
  for (const int32_t dtype : kDTypes) {
    for (const auto& [rows, cols] : sides) {
      for (const bool exact : {false, true}) {
        if (exact && dtype != SP_F32 && dtype != SP_BF16) continue;
        const TestMatrix w = TestMatrix::random(random, dtype, rows, cols, exact);
        const auto x = random.normals(int64_t{33} * cols);
        const std::string what = std::string(dtype_name(dtype)) + (exact ? " exact " : " ") + std::to_string(rows) +
                                 " x " + std::to_string(cols);
        const Compute compute = [&, cols = cols, rows = rows](const SpBackend& on, int32_t first, int32_t count) {
          const auto part = slice(x, cols, first, count);
          Guarded<float> y(int64_t{count} * rows);
          multiply(on, w.on(on), part.data(), count, y.data());
          return y.take();
        };
        if (dtype == SP_F8_E4M3 && check.rounds()) {
          check.tokens(what, 33, compute, INFINITY);
          fp8_product(check, what, w, x, 33, compute(reference_backend(), 0, 33));
        } else {
          check.tokens(what, 33, compute, check.tolerance(!exact));
        }
      }
    }
  }
}

}  // namespace sparrow::test
