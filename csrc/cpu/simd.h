// Vectors of any width (64, 32 or 16 bytes, by what the compiler is allowed to use) on GCC/Clang vector extensions, and the
// elementary functions on them. Everything is in titan::cpu and inline, so one source can be compiled once per instruction set.
//   vec<real>, ivec<real>     LANES<real> numbers, and integers of the same width (what comparisons give, all ones where true)
//   load, store, splat        unaligned; with a count they touch only that many lanes (the others read as zero); bf16 and float8 are widened and rounded
//   exp2_lanes exp_lanes log_lanes tanh_lanes sigmoid_lanes silu_lanes sqrt_lanes     f32 and f64 within 2.5 ulp; NaN stays NaN, infinities follow IEEE
//   sum_lanes, max_lanes      horizontal, in a fixed order
// Nothing here relies on -ffast-math: a diverging loss must show as NaN, not as a plausible number.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>
#endif

#include "../backend.h"

namespace titan::cpu::inline TITAN_LEVEL {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
constexpr int VECTOR_BYTES = 64;
constexpr bool MANY_REGISTERS = true;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32;
constexpr bool MANY_REGISTERS = false;
#else
constexpr int VECTOR_BYTES = 16;
#if defined(__aarch64__)
constexpr bool MANY_REGISTERS = true;  // 32 of them; x86 has 16 before AVX-512
#else
constexpr bool MANY_REGISTERS = false;
#endif
#endif

template <class real>
struct Vector;
template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(VECTOR_BYTES)));
  typedef int32_t itype __attribute__((vector_size(VECTOR_BYTES)));
  typedef float loose __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(4)));
};
template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(VECTOR_BYTES)));
  typedef int64_t itype __attribute__((vector_size(VECTOR_BYTES)));
  typedef double loose __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(8)));
};
template <class real>
using vec = typename Vector<real>::type;
template <class real>
using ivec = typename Vector<real>::itype;
template <class real>
using integer = std::conditional_t<sizeof(real) == 4, int32_t, int64_t>;
template <class real>
constexpr int LANES = VECTOR_BYTES / int(sizeof(real));

#define TITAN_INLINE inline __attribute__((always_inline))

/// How many parts of a size there are, and the least whole number of them.
TITAN_INLINE int64_t parts(int64_t size, int64_t part) { return (size + part - 1) / part; }
TITAN_INLINE int64_t round_up(int64_t size, int64_t unit) { return parts(size, unit) * unit; }

// ---- memory ----
template <class real>
TITAN_INLINE vec<real> load(const real* p) {
  return *reinterpret_cast<const typename Vector<real>::loose*>(p);
}
template <class real>
TITAN_INLINE void store(real* p, vec<real> v) {
  *reinterpret_cast<typename Vector<real>::loose*>(p) = v;
}
template <class real>
TITAN_INLINE vec<real> load(const real* p, int64_t count) {
  if (count >= LANES<real>) return load(p);
  vec<real> v = {};
  for (int i = 0; i < LANES<real> - 1; i++)
    if (i < count) v[i] = p[i];
  return v;
}
template <class real>
TITAN_INLINE void store(real* p, vec<real> v, int64_t count) {
  if (count >= LANES<real>) return store(p, v);
  for (int i = 0; i < LANES<real> - 1; i++)
    if (i < count) p[i] = v[i];
}

// ---- bf16 in memory, f32 in registers ----
typedef uint16_t halves __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint16_t loose_halves __attribute__((vector_size(VECTOR_BYTES / 2), may_alias, aligned(2)));
typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES)));

/// The nearest bf16 in the upper half of each lane, ties to even; the lower half is what is cut off. NaN stays NaN.
TITAN_INLINE words rounded_words(vec<float> x) {
  const words u = (words)x;
  return x != x ? u | 0x400000 : u + 0x7fff + (u >> 16 & 1);
}
TITAN_INLINE vec<float> widen(halves h) {
#if defined(__AVX512F__)
  return (vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)h), 16);
#elif defined(__AVX2__)
  return (vec<float>)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)h), 16);
#else
  return (vec<float>)(__builtin_convertvector(h, words) << 16);
#endif
}
/// Rounds to bf16. AVX512-BF16's instruction takes denormals (below 2^-126) for zero; arm64's and integer arithmetic keep them.
TITAN_INLINE halves narrow(vec<float> x) {
#if defined(__AVX512BF16__)
  return (halves)_mm512_cvtneps_pbh((__m512)x);
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  return (halves)vreinterpret_u16_bf16(vcvt_bf16_f32((float32x4_t)x));
#elif defined(__AVX2__) && !defined(__AVX512F__)
  const __m256i w = (__m256i)(rounded_words(x) >> 16);
  return (halves)_mm_packus_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
#else
  return __builtin_convertvector(rounded_words(x) >> 16, halves);
#endif
}
/// The nearest bf16 of each lane as a real; f64 goes by way of f32.
template <class real>
TITAN_INLINE vec<real> round_bf16(vec<real> x) {
  if constexpr (sizeof(real) == 4) {
#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return widen(narrow(x));
#else
    return (vec<real>)(rounded_words(x) & 0xffff0000);
#endif
  } else {
    for (int i = 0; i < LANES<real>; i++) x[i] = bf16(float(x[i]));
    return x;
  }
}
TITAN_INLINE vec<float> load(const bf16* p) { return widen(*reinterpret_cast<const loose_halves*>(p)); }
TITAN_INLINE void store(bf16* p, vec<float> x) { *reinterpret_cast<loose_halves*>(p) = narrow(x); }
TITAN_INLINE vec<float> load(const bf16* p, int64_t count) {
  if (count >= LANES<float>) return load(p);
  vec<float> x = {};
  for (int i = 0; i < LANES<float> - 1; i++)
    if (i < count) x[i] = p[i];
  return x;
}
TITAN_INLINE void store(bf16* p, vec<float> x, int64_t count) {
  if (count >= LANES<float>) return store(p, x);
  const halves h = narrow(x);
  for (int i = 0; i < LANES<float> - 1; i++)
    if (i < count) p[i].bits = h[i];
}

// ---- float8 in memory, f32 in registers: the arithmetic of Float8 (backend.h), lane by lane ----
typedef uint8_t octets __attribute__((vector_size(VECTOR_BYTES / 4)));
typedef uint8_t loose_octets __attribute__((vector_size(VECTOR_BYTES / 4), may_alias, aligned(1)));

template <class F8>
TITAN_INLINE octets narrow_to(vec<float> x) {
  const words u = (words)x, size = u & 0x7fffffff;
  words rounded = (size - ((127 - F8::BIAS) << 23) + (1 << (F8::SHIFT - 1)) - 1 + (size >> F8::SHIFT & 1)) >> F8::SHIFT;
  rounded = size < F8::NORMAL ? (words)((vec<float>)size + __builtin_bit_cast(float, F8::SUBNORMAL)) - F8::SUBNORMAL : rounded;
  rounded = size >= F8::TOO_LARGE ? (size > 0x7f800000 ? words{} + F8::NOT_A_NUMBER : words{} + F8::LARGEST) : rounded;
  return __builtin_convertvector((u >> 24 & 0x80) | rounded, octets);
}
template <class F8>
TITAN_INLINE vec<float> widen_from(octets o) {
  const words w = __builtin_convertvector(o, words), size = w & 0x7f;
  words wide = (size << F8::SHIFT) + ((127 - F8::BIAS) << 23);
  wide = size < 1u << F8::MANTISSA ? (words)((vec<float>)(size | F8::SUBNORMAL) - __builtin_bit_cast(float, F8::SUBNORMAL)) : wide;
  if constexpr (F8::LARGEST == 0x7c) wide = size == F8::LARGEST ? words{} + 0x7f800000 : wide;
  wide = size > F8::LARGEST ? words{} + 0x7fc00000 : wide;
  return (vec<float>)(wide | (w & 0x80) << 24);
}
/// The nearest number of that type as a real; f64 goes by way of f32.
template <class real, class F8>
TITAN_INLINE vec<real> round_to(vec<real> x) {
  if constexpr (sizeof(real) == 4) return widen_from<F8>(narrow_to<F8>(x));
  for (int i = 0; i < LANES<real>; i++) x[i] = F8(float(x[i]));
  return x;
}
template <int E, bool S>
TITAN_INLINE vec<float> load(const Float8<E, S>* p) {
  return widen_from<Float8<E, S>>(*reinterpret_cast<const loose_octets*>(p));
}
template <int E, bool S>
TITAN_INLINE void store(Float8<E, S>* p, vec<float> x) {
  *reinterpret_cast<loose_octets*>(p) = narrow_to<Float8<E, S>>(x);
}
template <int E, bool S>
TITAN_INLINE vec<float> load(const Float8<E, S>* p, int64_t count) {
  if (count >= LANES<float>) return load(p);
  vec<float> x = {};
  for (int i = 0; i < LANES<float> - 1; i++)
    if (i < count) x[i] = p[i];
  return x;
}
template <int E, bool S>
TITAN_INLINE void store(Float8<E, S>* p, vec<float> x, int64_t count) {
  if (count >= LANES<float>) return store(p, x);
  const octets o = narrow_to<Float8<E, S>>(x);
  for (int i = 0; i < LANES<float> - 1; i++)
    if (i < count) p[i].bits = o[i];
}
/// Is T only a way to store f32?
template <class T>
constexpr bool IS_STORED = std::is_same_v<T, bf16> || std::is_same_v<T, f8e4m3> || std::is_same_v<T, f8e5m2>;

// ---- lanes ----
template <class real>
TITAN_INLINE vec<real> splat(real x) {
  return x - vec<real>{};
}
template <class real>
TITAN_INLINE ivec<real> splat_integer(integer<real> x) {
  return x - ivec<real>{};
}

/// Keeps a loaded vector that is used M times from being loaded M times, as an operand of each instruction.
template <class V>
TITAN_INLINE V in_register(V v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
  return v;
}

/// f(i, count) for i = 0, LANES, 2 LANES ...: count is LANES but for a shorter last piece. The full pieces compile to whole loads and stores.
template <class real, class F>
TITAN_INLINE void for_lanes(int64_t n, F f) {
  int64_t i = 0;
  for (; i + LANES<real> <= n; i += LANES<real>) f(i, int64_t(LANES<real>));
  if (i < n) f(i, n - i);
}

// ---- selection and reduction ----
template <class V>
TITAN_INLINE V larger(V a, V b) {  // one instruction, which GCC does not find by itself; b where either is NaN
#if defined(__AVX512F__)
  if constexpr (sizeof(a[0]) == 4) return (V)_mm512_max_ps((__m512)a, (__m512)b);
  else return (V)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
  if constexpr (sizeof(a[0]) == 4) return (V)_mm256_max_ps((__m256)a, (__m256)b);
  else return (V)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
  return a > b ? a : b;
#endif
}
template <class V>
TITAN_INLINE V smaller(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(a[0]) == 4) return (V)_mm512_min_ps((__m512)a, (__m512)b);
  else return (V)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
  if constexpr (sizeof(a[0]) == 4) return (V)_mm256_min_ps((__m256)a, (__m256)b);
  else return (V)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
  return a < b ? a : b;
#endif
}
template <class V>
TITAN_INLINE V maximum(V a, V b) {  // NaN where either is NaN
  return ((a > b) | (a != a)) ? a : b;
}
template <class V>
TITAN_INLINE V minimum(V a, V b) {
  return ((a < b) | (a != a)) ? a : b;
}
template <class V, size_t... I>
TITAN_INLINE V zip_low(V a, V b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, (I / 2 + I % 2 * sizeof...(I))...);
}
template <class V, size_t... I>
TITAN_INLINE V zip_high(V a, V b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, (sizeof...(I) / 2 + I / 2 + I % 2 * sizeof...(I))...);
}
template <int distance, class V, size_t... I>
TITAN_INLINE V exchange(V a, std::index_sequence<I...>) {  // lane i gets that of i xor distance
  return __builtin_shufflevector(a, a, (I ^ distance)...);
}
template <class V, size_t... I>
TITAN_INLINE V even_pairs(V a, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, a, (I & ~size_t(1))...);
}
template <class V, size_t... I>
TITAN_INLINE V odd_pairs(V a, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, a, (I | 1)...);
}
template <class real>
using lane_indices = std::make_index_sequence<LANES<real>>;

template <class real, int distance = LANES<real> / 2>
TITAN_INLINE real sum_lanes(vec<real> v) {
  v += exchange<distance>(v, lane_indices<real>());
  if constexpr (distance > 1) return sum_lanes<real, distance / 2>(v);
  else return v[0];
}
template <class real>
TITAN_INLINE real max_lanes(vec<real> v) {  // NaN if any lane is
  real x[LANES<real>];
  store(x, v);
  real m = x[0];
  for (int i = 1; i < LANES<real>; i++) m = m > x[i] || m != m ? m : x[i];
  return m;
}

/// Transposes a LANES x LANES block held in registers: r[i][j] becomes r[j][i].
template <class real>
TITAN_INLINE void transpose(vec<real> (&r)[LANES<real>]) {
  constexpr int N = LANES<real>;
#pragma GCC unroll 4
  for (int stage = 1; stage < N; stage *= 2) {
    vec<real> t[N];
#pragma GCC unroll 16
    for (int i = 0; i < N / 2; i++) {
      t[2 * i] = zip_low(r[i], r[i + N / 2], lane_indices<real>());
      t[2 * i + 1] = zip_high(r[i], r[i + N / 2], lane_indices<real>());
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) r[i] = t[i];
  }
}

/// Rotates adjacent pairs by the angles of `table` = (cos, sin, cos, sin, ...); direction -1 rotates back.
template <class real>
TITAN_INLINE vec<real> rotate(vec<real> x, vec<real> table, real direction) {
  const auto lanes = lane_indices<real>();
  vec<real> sign;
  for (int i = 0; i < LANES<real>; i++) sign[i] = i % 2 ? direction : -direction;
  return x * even_pairs(table, lanes) + exchange<1>(x, lanes) * (odd_pairs(table, lanes) * sign);
}

// ---- elementary functions ----
constexpr double LOG2E = 1.4426950408889634074, LN2 = 0.69314718055994530942;

/// Constants of one precision. `exp` is e^r on |r| <= ln2/2 (f32: minimax, 3e-9; f64: Taylor, 5e-18), `exp2` is 2^r on |r| <= 1/2.
template <class real>
struct Elementary;
template <>
struct Elementary<float> {
  static constexpr float exp[] = {1, 1.00000004964f, 0.500000043438f, 0.166663654413f, 0.0416647772892f, 0.00837901116061f, 0.00140612409434f};
  static constexpr float exp2[] = {1, 0.693147214968f, 0.240226527829f, 0.0555031055101f, 0.00961769297299f, 0.00134066439024f, 0.000155946781613f};
  static constexpr float round = 12582912, least2 = -151, most2 = 129, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr int bits = 23, bias = 127, log_terms = 4;
  static constexpr int32_t half_root = 0x3f3504f3;
};
template <>
struct Elementary<double> {
  static constexpr double exp[] = {1,           1,            1. / 2,        1. / 6,         1. / 24,         1. / 120,        1. / 720,
                                   1. / 5040, 1. / 40320, 1. / 362880, 1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800};
  static constexpr double round = 6755399441055744, least2 = -1076, most2 = 1025, ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr int bits = 52, bias = 1023, log_terms = 11;
  static constexpr int64_t half_root = 0x3fe6a09e667f3bcd;
};

template <class real, size_t N>
TITAN_INLINE vec<real> polynomial(vec<real> x, const real (&c)[N]) {
  vec<real> p = splat(c[N - 1]);
#pragma GCC unroll 16
  for (int i = int(N) - 2; i >= 0; i--) p = p * x + c[i];
  return p;
}

/// Nearest integer of |x| < 2^21, and p * 2^n for such an n.
template <class real>
TITAN_INLINE vec<real> round_to_integer(vec<real> x) {
  return (x + Elementary<real>::round) - Elementary<real>::round;
}
template <class real>
TITAN_INLINE vec<real> scale_by_power(vec<real> p, vec<real> n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(real) == 4) return (vec<real>)_mm512_scalef_ps((__m512)p, (__m512)n);
  else return (vec<real>)_mm512_scalef_pd((__m512d)p, (__m512d)n);
#else
  using E = Elementary<real>;  // in two factors, so that neither the smallest nor the largest results need a special case
  const ivec<real> k = (ivec<real>)(n + E::round) - (ivec<real>)splat(E::round), half = k >> 1;
  return p * (vec<real>)((half + E::bias) << E::bits) * (vec<real>)((k - half + E::bias) << E::bits);
#endif
}
template <class real>
TITAN_INLINE vec<real> clamp_keeping_nan(vec<real> x, real least, real most) {
  return larger(splat(least), smaller(splat(most), x));
}

template <class real>
TITAN_INLINE vec<real> exp2_lanes(vec<real> x) {
  using E = Elementary<real>;
  x = clamp_keeping_nan<real>(x, E::least2, E::most2);
  const vec<real> n = round_to_integer<real>(x), r = x - n;
  if constexpr (sizeof(real) == 4) return scale_by_power<real>(polynomial<real>(r, E::exp2), n);
  else return scale_by_power<real>(polynomial<real>(r * real(LN2), E::exp), n);
}
/// 2^x within 2 ulp for attention, where it is a third of the work: eight instructions under AVX-512, whose `reduce` gives x - floor(x) (0 for
/// an infinity) and whose `scalef` takes the floor by itself; 2^r on [0, 1) is minimax of degree 5, 7.5e-8.
template <class real>
TITAN_INLINE vec<real> exp2_quick(vec<real> x) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (sizeof(real) == 4) {
    static constexpr float c[] = {0.999999925064f, 0.693153073203f, 0.240153617021f, 0.0558263181162f, 0.00898934002358f, 0.00187757670002f};
    const vec<float> r = (vec<float>)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF);
    return scale_by_power<float>(polynomial<float>(r, c), x);
  }
#endif
  return exp2_lanes<real>(x);
}
template <class real>
TITAN_INLINE vec<real> exp_lanes(vec<real> x) {
  using E = Elementary<real>;
  x = clamp_keeping_nan<real>(x, real(E::least2 * LN2), real(E::most2 * LN2));
  const vec<real> n = round_to_integer<real>(x * real(LOG2E));
  const vec<real> r = (x - n * E::ln2_high) - n * E::ln2_low;
  return scale_by_power<real>(polynomial<real>(r, E::exp), n);
}

/// x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) by the series of artanh(f / (2 + f)), as in FreeBSD's e_log.c.
template <class real>
TITAN_INLINE vec<real> log_lanes(vec<real> x) {
  using E = Elementary<real>;
  const real lift = real(int64_t(1) << (E::bits + 2)), infinity = std::numeric_limits<real>::infinity();
  const ivec<real> regular = (x > 0) & (x < infinity), tiny = x < std::numeric_limits<real>::min();
  const vec<real> y = regular ? tiny ? x * lift : x : splat(real(1));
  const ivec<real> k = ((ivec<real>)y - E::half_root) >> E::bits;
  const vec<real> f = (vec<real>)((ivec<real>)y - (k << E::bits)) - 1;
  const vec<real> s = f / (2 + f), z = s * s, half = f * f * real(0.5);
  vec<real> series = splat(real(2) / (2 * E::log_terms + 1));
#pragma GCC unroll 16
  for (int i = E::log_terms - 1; i > 0; i--) series = series * z + real(2) / (2 * i + 1);
  const vec<real> e = __builtin_convertvector(tiny ? k - (E::bits + 2) : k, vec<real>);
  const vec<real> result = e * E::ln2_high - ((half - (s * (half + series * z) + e * E::ln2_low)) - f);
  const vec<real> special = x == 0 ? splat(-infinity) : x < 0 ? splat(std::numeric_limits<real>::quiet_NaN()) : x;
  return regular ? result : special;
}

template <class real>
TITAN_INLINE vec<real> sqrt_lanes(vec<real> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(real) == 4) return (vec<real>)_mm512_sqrt_ps((__m512)x);
  else return (vec<real>)_mm512_sqrt_pd((__m512d)x);
#else
  for (int i = 0; i < LANES<real>; i++) x[i] = std::sqrt(x[i]);
  return x;
#endif
}
template <class real>
TITAN_INLINE vec<real> sigmoid_lanes(vec<real> x) {
  return 1 / (1 + exp_lanes<real>(-x));
}
template <class real>
TITAN_INLINE vec<real> silu_lanes(vec<real> x) {
  return x / (1 + exp_lanes<real>(-x));
}
/// f32: Cephes' polynomial below 5/8 (where 1 - 2/(e^2x + 1) would cancel); f64: the C library, lane by lane.
template <class real>
TITAN_INLINE vec<real> tanh_lanes(vec<real> x) {
  if constexpr (sizeof(real) == 4) {
    const vec<real> z = x * x, size = x < 0 ? -x : x;
    const vec<real> small = ((((-5.70498872745e-3f * z + 2.06390887954e-2f) * z - 5.37397155531e-2f) * z + 1.33314422036e-1f) * z - 3.33332819422e-1f) * z * x + x;
    const vec<real> large = 1 - 2 / (exp_lanes<real>(2 * size) + 1);
    return size < 0.625f ? small : x < 0 ? -large : large;
  } else {
    for (int i = 0; i < LANES<real>; i++) x[i] = std::tanh(x[i]);
    return x;
  }
}

}  // namespace titan::cpu
