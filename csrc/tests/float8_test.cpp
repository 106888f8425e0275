// float8 in vectors: casts are those of PyTorch for all bf16 and for ten million f32, by hashes (float8_goldens.h); all 2 x 2^8 numbers widen
// exactly; kernels that store and multiply them do so at those points.
#include "../cpu/simd.h"

#include "float8_goldens.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

constexpr int L = cpu::LANES<float>;

uint32_t bits(float x) { return __builtin_bit_cast(uint32_t, x); }

template <class F8> std::vector<F8> cast(const std::vector<float>& x) {
  std::vector<F8> y(x.size());
  for (size_t i = 0; i < x.size(); i += L) cpu::store(&y[i], cpu::load(&x[i], int64_t(x.size() - i)), int64_t(x.size() - i));
  return y;
}

template <class F8> uint64_t hash(const std::vector<F8>& octets) {
  uint64_t value = 0xcbf29ce484222325;
  for (size_t i = 0; i < octets.size(); i += 4) {
    uint32_t word;
    std::memcpy(&word, &octets[i], 4);
    value = (value ^ word) * 0x100000001b3;
  }
  return value;
}

std::vector<float> all_bf16() {
  std::vector<float> x(1 << 16);
  for (uint32_t i = 0; i < x.size(); i++) x[i] = __builtin_bit_cast(float, i << 16);
  return x;
}

std::vector<float> some_f32() {
  std::vector<float> x(10'000'000);
  for (uint32_t i = 0; i < x.size(); i++) {
    const uint32_t u = i * 0x9e3779b1u, near = (u & 0x807fffff) | (100 + (u >> 23 & 0xff) % 48) << 23;
    x[i] = __builtin_bit_cast(float, i % 2 ? near : u);
  }
  return x;
}

/// The number that bits stand for, by the definition of the format.
template <class F8> double defined(uint8_t octet) {
  const int size = octet & 0x7f, exponent = size >> F8::MANTISSA, mantissa = size & ((1 << F8::MANTISSA) - 1);
  const double sign = octet & 0x80 ? -1 : 1, fraction = std::ldexp(mantissa, -F8::MANTISSA);
  if (size > int(F8::LARGEST)) return NAN;
  if (F8::LARGEST == 0x7c && size == 0x7c) return sign * INFINITY;
  return sign * (exponent ? std::ldexp(1 + fraction, exponent - F8::BIAS) : std::ldexp(fraction, 1 - F8::BIAS));
}

template <class F8> void casts(const Float8Golden& golden) {
  const auto bf16s = all_bf16(), f32s = some_f32();
  const auto narrow = cast<F8>(bf16s), more = cast<F8>(f32s);
  EXPECT(hash(narrow) == golden.all_bf16);
  EXPECT(hash(more) == golden.some_f32);
  for (size_t i = 0; i < bf16s.size(); i++) EXPECT(F8(bf16s[i]).bits == narrow[i].bits);
  for (size_t i = 0; i < f32s.size(); i++) EXPECT(F8(f32s[i]).bits == more[i].bits);
  for (int i = 0; i < 256; i += L) {
    F8 from[L];
    float wide[L];
    for (int k = 0; k < L; k++) from[k].bits = uint8_t(i + k);
    cpu::store(wide, cpu::load(from));
    for (int k = 0; k < L; k++) {
      const double exact = defined<F8>(uint8_t(i + k));
      EXPECT(double(wide[k]) == exact || (std::isnan(wide[k]) && std::isnan(exact)));
      EXPECT(bits(wide[k]) == bits(float(from[k])) && std::signbit(wide[k]) == ((i + k) >> 7));
      EXPECT(std::isnan(exact) || F8(wide[k]).bits == i + k);
      EXPECT(std::isnan(exact) || bf16(wide[k]) == wide[k]);
    }
  }
  for (int count = 0; count <= L; count++) {
    F8 from[L + 1], to[L + 1] = {};
    for (int k = 0; k <= L; k++) from[k] = F8(float(k) - 3), to[k].bits = 99;
    cpu::store(to, cpu::load(from, count), count);
    for (int k = 0; k <= L; k++) EXPECT(to[k].bits == (k < count ? from[k].bits : 99));
  }
}

/// y = round(2 x) of an element-wise program, stored and in registers, from and to columns.
template <class F8> void maps(int round) {
  constexpr int MUL = 2;
  Array<float> x({33, 50}), rounded({33, 50});
  Array<F8> y({33, 50}, {1, 40}), narrow({33, 50});
  x.random(3, 100);
  CallBuilder call, again;
  call.add(x).add(rounded).add(y).integer(1).integer(4).integer(4);
  call.integer(MUL | 2 << 16 | int64_t(0) << 28 | int64_t(1) << 40).integer(round | 3 << 16 | int64_t(2) << 28).integer(3).integer(2).integer(1).real(2);
  RUN(call, map, 2);
  again.add(y).add(narrow).integer(1).integer(1).integer(1).integer(0).integer(0);
  RUN(again, map, 2);
  for (int64_t i = 0; i < x.size(); i++) EXPECT(y[i].bits == F8(2 * x[i]).bits && rounded[i] == float(y[i]) && narrow[i].bits == y[i].bits);
  CallBuilder copied;
  Array<F8> turned({33, 50});
  copied.add(y).add(turned);
  RUN(copied, copy, 2);
  for (int64_t i = 0; i < x.size(); i++) EXPECT(turned[i].bits == y[i].bits);
}

/// Products of float8 are those of the same numbers in bf16, to the last bit.
template <class A, class B> void products(int64_t M, int64_t N, int64_t K, bool turned) {
  Array<A> a({1, M, K}, turned ? std::vector<int64_t>{M * K, 1, M} : std::vector<int64_t>{});
  Array<B> b({1, K, N}, turned ? std::vector<int64_t>{K * N, 1, K} : std::vector<int64_t>{});
  Array<bf16> wide_a(a.dims, a.strides), wide_b(b.dims, b.strides);
  a.random(1, 3), b.random(2, 40);
  wide_a.fill([&](int64_t i) { return a[i]; }), wide_b.fill([&](int64_t i) { return b[i]; });
  Array<float> c({1, M, N}), expected({1, M, N});
  CallBuilder call, wide;
  call.add(a).add(b).add(c).integer(0).integer(1);
  wide.add(wide_a).add(wide_b).add(expected).integer(0).integer(1);
  RUN(call, gemm, 2);
  RUN(wide, gemm, 2);
  EXPECT(c == expected);
  call.attributes[1].i = 0;
  EXPECT(!REFUSAL(call, gemm).empty());
}

/// The largest size, also of bf16, along rows, down columns and of all; NaN stays NaN.
void largest_sizes() {
  for (const bool nan : {false, true}) {
    Array<bf16> x({70, 130});
    x.random(4);
    if (nan) x[777] = bf16(NAN);
    for (const auto& strides : {std::vector<int64_t>{1, 0}, {0, 1}, {0, 0}}) {
      Array<float> y({strides[0] ? 70 : strides[1] ? 130 : 1});
      CallBuilder call;
      call.add(x).add(y).scratch(8 * ((x.size() + 255) / 256)).integer(2);
      call.operands[1].rank = 2;
      for (int d = 0; d < 2; d++) call.operands[1].dims[d] = x.dims[size_t(d)], call.operands[1].strides[d] = strides[size_t(d)];
      RUN(call, reduce, 2);
      std::vector<float> expected(size_t(y.size()), 0);
      for (int64_t i = 0; i < x.size(); i++) {
        float& most = expected[size_t(i / 130 * strides[0] + i % 130 * strides[1])];
        most = std::fabs(x[i]) > most || std::isnan(float(x[i])) ? std::fabs(x[i]) : most;
        if (std::isnan(float(x[i]))) most = INFINITY;
      }
      for (int64_t i = 0; i < y.size(); i++) EXPECT(expected[size_t(i)] == INFINITY ? std::isnan(y[i]) : y[i] == expected[size_t(i)]);
    }
  }
}

}  // namespace

int main() {
  casts<f8e4m3>(E4M3);
  casts<f8e5m2>(E5M2);
  constexpr int ROUND_E4M3 = 24, ROUND_E5M2 = 25;  // of kernels.def
  maps<f8e4m3>(ROUND_E4M3);
  maps<f8e5m2>(ROUND_E5M2);
  for (const bool turned : {false, true}) {
    products<f8e4m3, f8e4m3>(70, 90, 410, turned);
    products<f8e5m2, f8e4m3>(33, 17, 1000, turned);
    products<f8e4m3, bf16>(20, 65, 31, turned);
  }
  largest_sizes();
  return finish("float8");
}
