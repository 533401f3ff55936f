// RMSNorm with strides and in place; LayerNorm, whose fixture has a row of mean 1000.
#include "ops.h"

namespace sparrow::test {

void test_rms_norm(Check& check) {
  const SpBackend& b = check.backend();
  const auto x = check.fixtures.floats("norms/x"), gain = check.fixtures.floats("norms/gain");
  for (const auto& [name, eps] : {std::pair{"norms/rms_1e-6", 1e-6f}, {"norms/rms_1e-5", 1e-5f}}) {
    Guarded<float> y(6 * 48);
    b.rms_norm(b.self, x.data(), 48, gain.data(), 6, 48, eps, y.data(), 48);
    check.near(name, y.take(), check.fixtures.floats(name));
  }
  Random random(2);
  for (const int32_t dim : {1, 2, 15, 48, 129, 512}) {
    const int32_t ldx = dim + 3;
    const auto rows = random.normals(int64_t{33} * ldx), gains = random.normals(dim);
    check.tokens("apart", 33, [&](const SpBackend& on, int32_t first, int32_t count) {
      Guarded<float> y(int64_t{count} * dim);
      on.rms_norm(on.self, rows.data() + int64_t{first} * ldx, ldx, gains.data(), count, dim, 1e-6f, y.data(), dim);
      return y.take();
    });
    check.tokens("in place", 33, [&](const SpBackend& on, int32_t first, int32_t count) {
      Guarded<float> y(slice(rows, ldx, first, count));
      on.rms_norm(on.self, y.data(), ldx, gains.data(), count, dim, 1e-6f, y.data(), ldx);
      return y.take();
    });
  }
}

void test_layer_norm(Check& check) {
  const SpBackend& b = check.backend();
  const auto x = check.fixtures.floats("norms/x"), gain = check.fixtures.floats("norms/gain"),
             bias = check.fixtures.floats("norms/bias");
  Guarded<float> y(6 * 48);
  b.layer_norm(b.self, x.data(), gain.data(), bias.data(), 6, 48, 1e-6f, y.data());
  check.near("norms/layer_norm", y.take(), check.fixtures.floats("norms/layer_norm"));
  Random random(3);
  for (const int32_t dim : {1, 2, 15, 48, 128}) {
    const auto rows = random.normals(int64_t{33} * dim), gains = random.normals(dim), biases = random.normals(dim);
    check.tokens("in place", 33, [&](const SpBackend& on, int32_t first, int32_t count) {
      Guarded<float> out(slice(rows, dim, first, count));
      on.layer_norm(on.self, out.data(), gains.data(), biases.data(), count, dim, 1e-6f, out.data());
      return out.take();
    });
  }
}

}  // namespace sparrow::test
