// What a full page is called: SHA-256 over its account's salt, everything before it and its 64 tokens. The same in
// every process and for ever, so that the disk can be asked by it.
#pragma once
#include <cstring>
#include <string>
#include <vector>

#include "sha256.h"

namespace sparrow {

using PageKey = Digest;

struct PageKeyHash {
  size_t operator()(const PageKey& key) const {
    size_t out;
    std::memcpy(&out, key.data(), sizeof out);
    return out;
  }
};

/// The names of one sequence's pages, made as they are asked for.
class KeyChain {
 public:
  explicit KeyChain(const std::string& salt);

  /// Of page `p`. `tokens` may have grown since the last call, by at least the end of that page.
  const PageKey& at(size_t p, const std::vector<int32_t>& tokens);

 private:
  std::vector<PageKey> keys_;  // the salt's, then one a page
};

}  // namespace sparrow
