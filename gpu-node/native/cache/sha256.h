// SHA-256 (FIPS 180-4): names of pages and models, which a disk may trust for ever.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sparrow {

using Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256& add(const void* data, size_t size);
  /// With its length before it, so that two texts in a row never read as two others.
  Sha256& add_text(std::string_view text);
  Sha256& add_number(uint64_t value);
  /// Ends the message; the object is used up.
  Digest finish();

 private:
  void block(const uint8_t* data);

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> waiting_{};
  uint64_t size_ = 0;
};

}  // namespace sparrow
