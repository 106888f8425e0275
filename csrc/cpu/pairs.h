// Pairs of bf16, where the processor has instructions for them (TITAN_MULTIPLIES_BF16): a lane of f32 holds two, which follow each other along the
// summed index, the first one in the lower half. One instruction multiplies pair by pair and adds both products to the f32 in that lane.
//   AVX512-BF16  rounds both additions to nearest, and takes bf16 numbers and sums below 2^-126 for 0
//   arm64        (FEAT_BF16) the same, but adds both products first and rounds to odd: an inexact sum keeps its higher bits, and its last one
//                becomes 1. That errs by less than 2^-23 of a sum, twice as much as rounding to nearest; but one addition for every two
//                products leaves the bound of product.h: K/2 sums and one of a pair, so (K + 2) 2^-24.
#pragma once
#include "simd.h"

#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define TITAN_MULTIPLIES_BF16
namespace titan::cpu::inline TITAN_LEVEL {

/// The pairs (x[0], x[1]), (x[2], x[3]) ... of the numbers low, then high, rounded.
TITAN_INLINE vec<float> neighbouring_pairs(vec<float> low, vec<float> high) {
#if defined(__AVX512BF16__)
  return (vec<float>)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
#else
  return (vec<float>)vcvtq_high_bf16_f32(vcvtq_low_bf16_f32((float32x4_t)low), (float32x4_t)high);
#endif
}
/// The same of numbers in memory, of which `count` exist; zeros for the rest.
TITAN_INLINE vec<float> load_pairs(const bf16* p, int64_t count) {
#if defined(__AVX512BF16__)
  return count >= 32 ? (vec<float>)_mm512_loadu_si512(p) : (vec<float>)_mm512_maskz_loadu_epi16(count > 0 ? (1u << count) - 1 : 0, p);
#else
  if (count >= 8) return (vec<float>)vld1q_u16(reinterpret_cast<const uint16_t*>(p));
  uint16x8_t numbers = {};
  for (int i = 0; i < 7; i++)
    if (i < count) numbers[i] = p[i].bits;
  return (vec<float>)numbers;
#endif
}
/// The pairs (first[0], second[0]), (first[1], second[1]) ..., rounded.
TITAN_INLINE vec<float> pairs_of(vec<float> first, vec<float> second) {
#if defined(__AVX512BF16__)
  typedef uint16_t all_halves __attribute__((vector_size(64)));
  constexpr all_halves zip = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return (vec<float>)_mm512_permutexvar_epi16((__m512i)zip, (__m512i)neighbouring_pairs(first, second));
#else
  const uint16x8_t both = (uint16x8_t)neighbouring_pairs(first, second);
  return (vec<float>)vzip1q_u16(both, vextq_u16(both, both, 4));
#endif
}
/// sum + a b
TITAN_INLINE vec<float> add_products(vec<float> sum, vec<float> a, vec<float> b) {
#if defined(__AVX512BF16__)
  return (vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
  return (vec<float>)vbfdotq_f32((float32x4_t)sum, vreinterpretq_bf16_f32((float32x4_t)a), vreinterpretq_bf16_f32((float32x4_t)b));
#endif
}

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
/// Two rows by two columns: sum[2 i + j] += the two pairs of row i, a[2 i], a[2 i + 1], times those of column j. The same as two `add_products`, at
/// twice the speed.
#define TITAN_MULTIPLIES_BLOCKS
TITAN_INLINE vec<float> add_block_products(vec<float> sum, vec<float> a, vec<float> b) {
  return (vec<float>)vbfmmlaq_f32((float32x4_t)sum, vreinterpretq_bf16_f32((float32x4_t)a), vreinterpretq_bf16_f32((float32x4_t)b));
}
#endif

}  // namespace titan::cpu::inline TITAN_LEVEL
#endif
