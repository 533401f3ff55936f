// Rows of the embedding: a look-up, so exact for every dtype.
#include "ops.h"

namespace sparrow::test {

void test_embed(Check& check) {
  const SpBackend& b = check.backend();
  for (const std::string& name : {std::string("e4m3"), std::string("bf16")}) {
    const auto shape = check.fixtures.shape("numbers/" + name + ".codes");
    const int32_t rows = static_cast<int32_t>(shape[0]), cols = static_cast<int32_t>(shape[1]);
    const bool fp8 = name == "e4m3";
    const TestMatrix table(fp8 ? SP_F8_E4M3 : SP_BF16, rows, cols, check.fixtures.bytes("numbers/" + name + ".codes"),
                           fp8 ? std::vector<float>{1} : std::vector<float>{}, false);
    std::vector<int32_t> ids;
    for (int32_t r = 0; r < rows; r++) ids.push_back(r);
    Guarded<float> y(rows * cols);
    b.embed(b.self, table.on(b), ids.data(), rows, y.data());
    check.same("every code of " + name, y.take(), check.fixtures.floats("numbers/" + name + ".values"));
  }
  Random random(1);
  for (const int32_t dtype : kDTypes) {
    for (const auto& [vocab, hidden] : {std::pair{1, 1}, {5, 17}, {300, 144}, {137, 200}}) {
      const TestMatrix table = TestMatrix::random(random, dtype, vocab, hidden, true);
      std::vector<int32_t> ids;
      for (int i = 0; i < 33; i++) ids.push_back(i ? random.below(vocab) : vocab - 1);
      check.tokens(dtype_name(dtype), 33, [&](const SpBackend& on, int32_t first, int32_t count) {
        Guarded<float> y(int64_t{count} * hidden);
        on.embed(on.self, table.on(on), ids.data() + first, count, y.data());
        return y.take();
      });
    }
  }
}

}  // namespace sparrow::test
