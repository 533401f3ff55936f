// cache_test FOLDER: page pool, names, checksums and the disk tier without a model, on scratch files below FOLDER. One
// line each; exit code 1 on failure.
#include "cache_test.h"

#include <cstdio>

namespace sparrow::test {
namespace {

int main_of(int count, char** arguments) {
  if (count < 2) return std::fprintf(stderr, "usage: cache_test FOLDER\n"), 2;
  int failed = 0;
  for (const auto& cases : {pool_cases(), disk_cases()}) {
    for (const CacheCase& test : cases) {
      const std::string wrong = test.run(std::string(arguments[1]) + "/" + test.name);
      std::printf("%-6s %s %s\n", wrong.empty() ? "ok" : "FAILED", test.name, wrong.c_str());
      failed += !wrong.empty();
    }
  }
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace sparrow::test

int main(int count, char** arguments) {
  return sparrow::test::main_of(count, arguments);
}
