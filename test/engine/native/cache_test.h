// The cases of cache_test: each gets a folder of its own that does not exist yet, and returns what is wrong.
#pragma once
#include <string>
#include <vector>

namespace sparrow::test {

struct CacheCase {
  const char* name;
  std::string (*run)(const std::string& dir);
};

std::vector<CacheCase> pool_cases();
std::vector<CacheCase> disk_cases();

}  // namespace sparrow::test
