// bf16 in vectors: all 2^16 numbers widen exactly, rounding is to nearest even, NaN stays NaN, and part of a vector touches no more.
#include "../cpu/simd.h"

#include <bit>

#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

constexpr int L = cpu::LANES<float>;

uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }
bool is_denormal(float x) { return x != 0 && std::fabs(x) < std::numeric_limits<float>::min(); }

/// Every lane of x rounded, by a whole store.
std::vector<bf16> rounded(const std::vector<float>& x) {
  std::vector<bf16> y(x.size());
  for (size_t i = 0; i < x.size(); i += L) cpu::store(&y[i], cpu::load(&x[i]));
  return y;
}

void widening() {
  std::vector<bf16> all(1 << 16);
  std::vector<float> wide(1 << 16);
  for (uint32_t i = 0; i < 1 << 16; i++) all[i].bits = uint16_t(i);
  for (size_t i = 0; i < all.size(); i += L) cpu::store(&wide[i], cpu::load(&all[i]));
  const auto again = rounded(wide);
  for (uint32_t i = 0; i < 1 << 16; i++) {
    EXPECT(bits(wide[i]) == i << 16 && bits(all[i]) == i << 16);
    const uint32_t quiet = std::isnan(wide[i]) ? i | 0x40 : i;
    EXPECT(again[i].bits == quiet || (is_denormal(wide[i]) && again[i].bits == (i & 0x8000)));
    EXPECT(bf16(wide[i]).bits == quiet);
  }
}

/// The scalar conversion against its definition, and vectors against the scalar one.
void rounding() {
  std::vector<float> x;
  for (uint32_t upper = 0; upper < 1 << 16; upper += 7)
    for (const uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) x.push_back(std::bit_cast<float>(upper << 16 | lower));
  while (x.size() % L) x.push_back(1);
  const auto y = rounded(x);
  for (size_t i = 0; i < x.size(); i++) {
    const bf16 scalar(x[i]);
    EXPECT(y[i].bits == scalar.bits || (is_denormal(x[i]) && y[i] == 0));
    if (std::isnan(x[i])) {
      EXPECT(std::isnan(scalar));
      continue;
    }
    // One of the two neighbours, the nearer one, the even one if both are as near. Behind the largest number the next step is the infinity.
    const uint32_t below = bits(x[i]) >> 16, lower = bits(x[i]) & 0xffff;
    EXPECT(scalar.bits == (lower > 0x8000 || (lower == 0x8000 && below % 2) ? below + 1 : below));
  }
  EXPECT(bf16(1 + 0x1p-8f) == 1 && bf16(1 + 0x3p-8f) == 1 + 0x1p-6f && bf16(1 + 0x1.01p-8f) == 1 + 0x1p-7f && bf16(-1 - 0x3p-8f) == -1 - 0x1p-6f);
  EXPECT(bf16(std::numeric_limits<float>::max()) == INFINITY && bf16(-std::numeric_limits<float>::max()) == -INFINITY);
  EXPECT(bf16(std::bit_cast<float>(0x7f7f7fffu)) == std::bit_cast<float>(0x7f7f0000u));
  EXPECT(std::isnan(bf16(std::bit_cast<float>(0x7f800001u))) && std::isnan(bf16(std::bit_cast<float>(0xffffffffu))));
}

template <class real>
void in_registers() {
  constexpr int lanes = cpu::LANES<real>;
  const real values[] = {real(1.00390625), real(-1.01171875), real(3e38), real(3.4e38), INFINITY, real(NAN), real(0.1), real(-0.0)};
  for (const real value : values) {
    real x[lanes];
    cpu::store(x, cpu::round_bf16<real>(cpu::splat(value)));
    for (int i = 0; i < lanes; i++) EXPECT(bits(float(x[i])) == bits(bf16(float(value))) || (std::isnan(x[i]) && std::isnan(value)));
  }
}

void parts() {
  for (int count = 0; count <= L; count++) {
    Array<bf16> from({count + 1}), to({count + 1});
    from.random(1);
    cpu::store(to.data(), cpu::load(from.data(), count), count);
    for (int i = 0; i < count; i++) EXPECT(to[i].bits == from[i].bits);
    EXPECT(to[count] == 77 && to.guarded());
    float wide[L];
    cpu::store(wide, cpu::load(from.data(), count));
    for (int i = count; i < L; i++) EXPECT(wide[i] == 0);
  }
}

}  // namespace

int main() {
  widening();
  rounding();
  in_registers<float>();
  in_registers<double>();
  parts();
  return finish("simd");
}
