// The rule that chooses a form of attention: sizes in, one of two out.
#include "../../../gpu-node/native/model/crossover.h"

#include "ops.h"

namespace sparrow::test {

void test_crossover(Check& check) {
  const AttentionShape v32 = {512, 64, 128, 128};
  const auto pays = [&](int64_t tokens, int64_t first, int64_t top_k) {
    return expanded_pays(v32, {tokens, first, top_k});
  };
  check.that("a whole short prompt", pays(512, 0, 0) && pays(64, 0, 0));
  check.that("one token behind others never makes their keys",
             !pays(1, 1, 0) && !pays(1, 1000, 0) && !pays(1, 50000, 2048));
  check.that("a long piece makes keys that all of it uses", pays(4096, 4096, 0));
  check.that("far past the choice of the indexer", !pays(4096, 60000, 2048) && !pays(512, 16384, 2048));
  // The specification's crossover is for many tokens: 2048 kept keys cost as much as some 7K expanded ones.
  int64_t crossings = 0, at = 0;
  for (int64_t first = 0; first < 32768; first += 64) {
    if (pays(4096, first, 2048) == pays(4096, first + 64, 2048)) continue;
    crossings++;
    at = first + 64;
  }
  check.that("one crossover in depth", crossings == 1 && at > 1024 && at < 8192);
  double last = 0;
  for (int64_t tokens = 64; tokens <= 512; tokens *= 2) {
    const AttentionPiece piece = {tokens, 4096, 2048};
    const double gain = absorbed_cost(v32, piece) / expanded_cost(v32, piece);
    check.that("more tokens share the keys that were made", gain > last);
    last = gain;
  }
}

}  // namespace sparrow::test
