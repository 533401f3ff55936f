// XXH64 as its specification has it; four lanes of eight bytes.
#include "checksum.h"

#include <bit>
#include <cstring>
#include <initializer_list>

namespace sparrow {
namespace {

constexpr uint64_t kPrime[] = {
    0, 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5};

uint64_t load64(const uint8_t* at) {
  uint64_t out;
  std::memcpy(&out, at, sizeof out);
  return out;
}

uint32_t load32(const uint8_t* at) {
  uint32_t out;
  std::memcpy(&out, at, sizeof out);
  return out;
}

uint64_t round(uint64_t lane, uint64_t input) {
  return std::rotl(lane + input * kPrime[2], 31) * kPrime[1];
}

uint64_t merge(uint64_t hash, uint64_t lane) {
  return (hash ^ round(0, lane)) * kPrime[1] + kPrime[4];
}

}  // namespace

uint64_t checksum(const void* data, size_t size, uint64_t seed) {
  const uint8_t* at = static_cast<const uint8_t*>(data);
  const uint8_t* const end = at + size;
  uint64_t hash = seed + kPrime[5];
  if (size >= 32) {
    uint64_t a = seed + kPrime[1] + kPrime[2], b = seed + kPrime[2], c = seed, d = seed - kPrime[1];
    for (; end - at >= 32; at += 32) {
      a = round(a, load64(at));
      b = round(b, load64(at + 8));
      c = round(c, load64(at + 16));
      d = round(d, load64(at + 24));
    }
    hash = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
    for (const uint64_t lane : {a, b, c, d}) hash = merge(hash, lane);
  }
  hash += size;
  for (; end - at >= 8; at += 8) hash = std::rotl(hash ^ round(0, load64(at)), 27) * kPrime[1] + kPrime[4];
  if (end - at >= 4) {
    hash = std::rotl(hash ^ load32(at) * kPrime[1], 23) * kPrime[2] + kPrime[3];
    at += 4;
  }
  for (; at < end; at++) hash = std::rotl(hash ^ *at * kPrime[5], 11) * kPrime[1];
  hash = (hash ^ hash >> 33) * kPrime[2];
  hash = (hash ^ hash >> 29) * kPrime[3];
  return hash ^ hash >> 32;
}

}  // namespace sparrow
