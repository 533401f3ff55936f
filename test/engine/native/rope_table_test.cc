// The model's rotation table and softmax scale against the published model's: YaRN with factor 40 over 4096 positions.
#include "../../../gpu-node/native/model/rope_table.h"

#include "ops.h"

namespace sparrow::test {

void test_rope_table(Check& check) {
  const Fixtures& f = check.fixtures;
  ModelConfig c;
  c.qk_nope_head_dim = 128;
  c.qk_rope_head_dim = 64;
  const auto frequencies = [&](const char* name) {
    const std::vector<double> ours = rope_frequencies(c), theirs = f.doubles(name);
    // Relative: the slow ones are what YaRN is about.
    for (size_t i = 0; i < theirs.size(); i++) check.that(name, std::abs(ours[i] / theirs[i] - 1) < 1e-9);
  };
  frequencies("rope/frequencies.plain");
  c.rope_scaling.present = true;
  c.rope_scaling.factor = 40;
  c.rope_scaling.mscale_all_dim = 1;
  frequencies("rope/frequencies.yarn");
  check.that("softmax scale", std::abs(c.softmax_scale() / f.doubles("rope/softmax_scale")[0] - 1) < 1e-9);
  const auto table = rope_table(c, 4097);
  const auto positions = f.ints("rope/positions");
  std::vector<float> rows;
  for (const int32_t at : positions) {
    const auto row = slice(table, 64, at, 1);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  check.near("rope/table", rows, f.floats("rope/table"));
}

}  // namespace sparrow::test
