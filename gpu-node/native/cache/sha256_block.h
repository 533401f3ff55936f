// One block of SHA-256 on a state of eight words: portable, and by the processor's instructions where it has them.
#pragma once
#include <array>
#include <cstdint>

namespace sparrow {

extern const std::array<uint32_t, 64> kSha256Round;

void sha256_portable_block(uint32_t* state, const uint8_t* data);

bool sha256_ni_runs();
/// Only where sha256_ni_runs().
void sha256_ni_block(uint32_t* state, const uint8_t* data);

}  // namespace sparrow
