// e^x in 16 lanes, within 2 units in the last place: x = n ln 2 + r, a polynomial on |r| <= ln 2 / 2, scaled by 2^n.
// Coefficients are 1 / k!: at degree 7 the remainder is below 1e-8.
#pragma once
#include <immintrin.h>

namespace {

static inline __attribute__((always_inline)) __m512 sp_exp(__m512 x) {
  const __m512 high = _mm512_set1_ps(88.72f), low = _mm512_set1_ps(-104.0f);
  x = _mm512_max_ps(low, _mm512_min_ps(high, x));  // in this order a NaN stays
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.0f / 5040);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

}  // namespace
