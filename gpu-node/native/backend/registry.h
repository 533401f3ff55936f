// Chooses a backend by name, once, at start-up.
#pragma once
#include <memory>
#include <string>

#include "../backend.h"
#include "../status.h"

namespace sparrow {

/// Owns a backend's table and whatever stands behind its `self`.
struct Backend {
  SpBackend table{};
  std::shared_ptr<void> owner;
};

/// isa: auto | reference | scalar | avx2 | avx512 | avx2bf16 | avx512bf16 | amxbf16. kv: what KV pages hold; "auto" is
/// the backend's own choice, "fp8" halves them. Error: bad_argument that lists what this machine can run.
Result<Backend> open_backend(const std::string& isa, int threads, const std::string& kv = "auto");

/// Plain loops with double accumulators: the definition of right, never tuned.
SpBackend reference_backend();

}  // namespace sparrow
