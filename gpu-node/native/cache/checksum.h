// XXH64: tells a damaged page from a whole one at memory speed. Not against an attacker; names are SHA-256.
#pragma once
#include <cstddef>
#include <cstdint>

namespace sparrow {

uint64_t checksum(const void* data, size_t size, uint64_t seed);

}  // namespace sparrow
