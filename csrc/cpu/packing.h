// What matrix products share, whatever multiplies (product.cpp, tile_product.cpp): how numbers are rounded and packed, and how work is cut.
#pragma once
#include "pairs.h"
#include "product.h"
#include "simd.h"

namespace titan::cpu::inline TITAN_LEVEL {

TITAN_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

struct Span {
  int64_t first, end;
  int64_t size() const { return end - first; }
};
/// Part i of n, of nearly equal sizes in units of `unit`.
TITAN_INLINE Span part(Span whole, int64_t unit, int64_t i, int64_t n) {
  const int64_t units = parts(whole.size(), unit);
  return {whole.first + least(whole.size(), units * i / n * unit), whole.first + least(whole.size(), units * (i + 1) / n * unit)};
}

/// The first `count` lanes, zeros behind them; none if count is not positive.
template <class T> TITAN_INLINE auto load_first(const T* p, int64_t count) {
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  constexpr int64_t lanes = sizeof(T) == 8 ? 8 : 16;
  if (count < lanes) {
    const uint16_t mask = count > 0 ? uint16_t((1u << count) - 1) : uint16_t{0};
    if constexpr (sizeof(T) == 8) return (vec<T>)_mm512_maskz_loadu_pd(uint8_t(mask), p);
    else if constexpr (sizeof(T) == 4) return (vec<T>)_mm512_maskz_loadu_ps(mask, p);
    else if constexpr (sizeof(T) == 1) return widen_from<T>((octets)_mm_maskz_loadu_epi8(mask, p));
    else return widen((halves)_mm256_maskz_loadu_epi16(mask, p));
  }
  return load(p);
#else
  return load(p, count);
#endif
}

// ---- arithmetic ----
// Packed blocks are made of units: PAIR neighbours in K of one row of A or one column of B, in a lane of vec<sum>.
//   along     units that follow each other in K, from p on, where K is contiguous; `count` elements remain
//   across    the units of neighbouring rows or columns; the second of a pair is `stride` from the first, and absent unless `whole`
//   spread    one unit in all lanes
//   add       s += a b
//   BLOCK     rows, and columns, that a vector of sums is made of; 1: one row by as many columns as a vector has lanes

template <class real> struct Plain {
  using sum = real;
  static constexpr int PAIR = 1, BLOCK = 1;
  static constexpr bool MIXED = false;  // all operands are stored as what is computed in
  static TITAN_INLINE vec<real> along(const real* p, int64_t count) { return load_first(p, count); }
  static TITAN_INLINE vec<real> across(const real* p, int64_t, int64_t count, bool) { return load_first(p, count); }
  static TITAN_INLINE vec<real> spread(const real* p) { return splat(*p); }
  static TITAN_INLINE void add(vec<real>& s, vec<real> a, vec<real> b) { s += a * b; }
};

#ifdef TITAN_MULTIPLIES_BF16
struct Bf16 {
  using sum = float;
  static constexpr int PAIR = 2, BLOCK = 1;
  static constexpr bool MIXED = true;
  static TITAN_INLINE vec<float> along(const bf16* p, int64_t count) { return load_pairs(p, count); }
  template <class T> static TITAN_INLINE vec<float> along(const T* p, int64_t count) {
    constexpr int64_t HALF = LANES<float>;
    return neighbouring_pairs(load_first(p, count), load_first(p + HALF, count - HALF));
  }
  static TITAN_INLINE vec<float> across(const bf16* p, int64_t stride, int64_t count, bool whole) {
    const words first = (words)load_first(p, count), second = (words)load_first(p + stride, whole ? count : 0);
    return (vec<float>)(first >> 16 | second);
  }
  template <class T> static TITAN_INLINE vec<float> across(const T* p, int64_t stride, int64_t count, bool whole) {
    return pairs_of(load_first(p, count), load_first(p + stride, whole ? count : 0));
  }
  static TITAN_INLINE vec<float> spread(const float* p) {
    int32_t pair;  // as integer: a pair is no float whose bits arithmetic would keep
    __builtin_memcpy(&pair, p, sizeof pair);
    return (vec<float>)splat_integer<float>(pair);
  }
  static TITAN_INLINE void store_both(bf16* p, vec<float> low, vec<float> high) { store(reinterpret_cast<float*>(p), neighbouring_pairs(low, high)); }
  static TITAN_INLINE void add(vec<float>& s, vec<float> a, vec<float> b) { s = add_products(s, a, b); }
};
#ifdef TITAN_MULTIPLIES_BLOCKS
/// Packed, two units of a row lie beside those of the next row, and so with columns. A vector of sums is two rows by two columns.
struct Bf16Blocks : Bf16 {
  static constexpr int BLOCK = 2;
};
#endif
#else
/// The same rounding points, multiplied in f32.
struct Bf16 : Plain<float> {
  static constexpr bool MIXED = true;
  template <class T> static TITAN_INLINE vec<float> along(const T* p, int64_t count) { return rounded(load_first(p, count), p); }
  template <class T> static TITAN_INLINE vec<float> across(const T* p, int64_t, int64_t count, bool) { return rounded(load_first(p, count), p); }

 private:
  template <class T> static TITAN_INLINE vec<float> rounded(vec<float> x, const T*) { return IS_STORED<T> ? x : round_bf16<float>(x); }
};
#endif

TITAN_INLINE void store_result(float* p, vec<float> x) { store(p, x); }
TITAN_INLINE void store_result(double* p, vec<double> x) { store(p, x); }
TITAN_INLINE void store_result(bf16* p, vec<float> x) {
#if defined(__AVX512BF16__)
  *reinterpret_cast<loose_halves*>(p) = (halves)_mm512_cvtneps_pbh((__m512)x);
#else
  store(p, x);
#endif
}

template <class Math, class F> TITAN_INLINE void with_stored(const Stored& matrix, F f) {
  if constexpr (Math::MIXED)
    if (matrix.dtype == DType::bf16) return f(static_cast<bf16*>(matrix.data));
  f(static_cast<typename Math::sum*>(matrix.data));
}

/// The same for what is multiplied, which may also be float8: each of its numbers is a bf16, too.
template <class Math, class F> TITAN_INLINE void with_operand(const Stored& matrix, F f) {
  if constexpr (Math::MIXED) {
    if (matrix.dtype == DType::f8e4m3) return f(static_cast<f8e4m3*>(matrix.data));
    if (matrix.dtype == DType::f8e5m2) return f(static_cast<f8e5m2*>(matrix.data));
  }
  with_stored<Math>(matrix, f);
}

}  // namespace titan::cpu::inline TITAN_LEVEL
