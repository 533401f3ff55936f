// A block of SHA-256 by the processor's own instructions: four rounds at a time, some four times as fast as portable
// C++.
#include <cpuid.h>
#include <immintrin.h>

#include "sha256_block.h"

namespace sparrow {

bool sha256_ni_runs() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
}

/// The instructions want the state as (A B E F) and (C D G H), highest word first.
void sha256_ni_block(uint32_t* state, const uint8_t* data) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  __m128i* const halves = reinterpret_cast<__m128i*>(state);
  const __m128i dcba = _mm_shuffle_epi32(_mm_loadu_si128(halves), 0xB1);
  const __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128(halves + 1), 0x1B);
  const __m128i abef_before = _mm_alignr_epi8(dcba, efgh, 8), cdgh_before = _mm_blend_epi16(efgh, dcba, 0xF0);
  __m128i abef = abef_before, cdgh = cdgh_before, w[4];
  for (int i = 0; i < 4; i++)
    w[i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data) + i), swap);
  for (int i = 0; i < 16; i++) {
    const __m128i now = w[i % 4];
    const __m128i k = _mm_add_epi32(now, _mm_loadu_si128(reinterpret_cast<const __m128i*>(kSha256Round.data()) + i));
    cdgh = _mm_sha256rnds2_epu32(cdgh, abef, k);
    abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(k, 0x0E));
    // The four words that replace `now`, used sixteen rounds later.
    const __m128i two = w[(i + 2) % 4], three = w[(i + 3) % 4];
    const __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(now, w[(i + 1) % 4]), _mm_alignr_epi8(three, two, 4));
    w[i % 4] = _mm_sha256msg2_epu32(sum, three);
  }
  abef = _mm_add_epi32(abef, abef_before);
  cdgh = _mm_add_epi32(cdgh, cdgh_before);
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1B), dchg = _mm_shuffle_epi32(cdgh, 0xB1);
  _mm_storeu_si128(halves, _mm_blend_epi16(feba, dchg, 0xF0));
  _mm_storeu_si128(halves + 1, _mm_alignr_epi8(dchg, feba, 8));
}

}  // namespace sparrow
