// One block at a time; a page's name is five of them.
#include "sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "sha256_block.h"

namespace sparrow {

const std::array<uint32_t, 64> kSha256Round = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

namespace {

const bool kNi = sha256_ni_runs();

uint32_t big_endian(const uint8_t* at) {
  return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | at[3];
}

}  // namespace

void sha256_portable_block(uint32_t* state, const uint8_t* data) {
  std::array<uint32_t, 64> w;
  for (size_t i = 0; i < 16; i++) w[i] = big_endian(data + 4 * i);
  for (size_t i = 16; i < 64; i++) {
    const uint32_t near = w[i - 2], far = w[i - 15];
    w[i] = w[i - 16] + (std::rotr(far, 7) ^ std::rotr(far, 18) ^ far >> 3) + w[i - 7] +
           (std::rotr(near, 17) ^ std::rotr(near, 19) ^ near >> 10);
  }
  uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
  uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
  for (size_t i = 0; i < 64; i++) {
    const uint32_t one =
        h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) + kSha256Round[i] + w[i];
    const uint32_t two = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
  }
  const std::array<uint32_t, 8> sum = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 8; i++) state[i] += sum[i];
}

void Sha256::block(const uint8_t* data) {
  (kNi ? sha256_ni_block : sha256_portable_block)(state_.data(), data);
}

Sha256& Sha256::add(const void* data, size_t size) {
  const uint8_t* from = static_cast<const uint8_t*>(data);
  while (size > 0) {
    const size_t at = size_ % 64, n = std::min(size, 64 - at);
    std::memcpy(waiting_.data() + at, from, n);
    size_ += n, from += n, size -= n;
    if (at + n == 64) block(waiting_.data());
  }
  return *this;
}

Sha256& Sha256::add_number(uint64_t value) {
  return add(&value, sizeof value);
}

Sha256& Sha256::add_text(std::string_view text) {
  return add_number(text.size()).add(text.data(), text.size());
}

Digest Sha256::finish() {
  const uint64_t bits = size_ * 8;
  const uint8_t end = 0x80, zero = 0;
  add(&end, 1);
  while (size_ % 64 != 56) add(&zero, 1);
  for (int shift = 56; shift >= 0; shift -= 8) {
    const uint8_t byte = static_cast<uint8_t>(bits >> shift);
    add(&byte, 1);
  }
  Digest out;
  for (size_t i = 0; i < 32; i++) out[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
  return out;
}

}  // namespace sparrow
