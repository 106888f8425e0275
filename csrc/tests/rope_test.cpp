// rope_table against the formula, with and without Llama 3.1 scaling; rope against rotation in f64, and its inverse.
#include "test.h"

using namespace titan;
using namespace titan::test;

double frequency(int64_t i, int64_t K, double theta, double factor, double low, double high, double original) {
  const double f = std::pow(theta, -double(2 * i) / double(K)), wavelength = 2 * M_PI / f;
  if (factor == 1 || wavelength < original / high) return f;
  if (wavelength > original / low) return f / factor;
  const double smooth = (original / wavelength - low) / (high - low);
  return (1 - smooth) * f / factor + smooth * f;
}

template <class real>
void rotate(int64_t N, int64_t H, int64_t K, double factor) {
  const double eps = sizeof(real) == 4 ? 1e-6 : 1e-14;
  Array<int32_t> positions({N});
  positions.fill([](int64_t n) { return double(n * 37 % 8192); });
  Array<real> table({N, K}), x({N, H, K}, {H * K + 7, K, 1}), y({N, H, K}), back({N, H, K});
  x.random(1);
  CallBuilder make, turn, unturn;
  make.add(positions).add(table).real(10000).real(factor).real(1).real(4).real(8192);
  RUN(make, rope_table, 2);
  turn.add(x).add(table).add(y).integer(0);
  RUN(turn, rope, 2);
  unturn.add(y).add(table).add(back).integer(1);
  RUN(unturn, rope, 1);
  for (int64_t n = 0; n < N; n++)
    for (int64_t i = 0; i < K / 2; i++) {
      const double angle = positions[n] * frequency(i, K, 10000, factor, 1, 4, 8192), c = std::cos(angle), s = std::sin(angle);
      EXPECT_NEAR(double(table[n * K + 2 * i]), c, eps + 1e-12);
      EXPECT_NEAR(double(table[n * K + 2 * i + 1]), s, eps + 1e-12);
      for (int64_t h = 0; h < H; h++) {
        const int64_t at = (n * H + h) * K + 2 * i;
        const double a = double(x[at]), b = double(x[at + 1]);
        EXPECT_NEAR(double(y[at]), a * c - b * s, 5 * eps + 1e-11);
        EXPECT_NEAR(double(y[at + 1]), b * c + a * s, 5 * eps + 1e-11);
        EXPECT_NEAR(double(back[at]), a, 5 * eps);
        EXPECT_NEAR(double(back[at + 1]), b, 5 * eps);
      }
    }
  EXPECT(table.guarded() && y.guarded());
}

template <class real>
void all() {
  for (double factor : {1., 8.}) {
    rotate<real>(5, 3, 16, factor);
    rotate<real>(300, 2, 64, factor);
    rotate<real>(3, 1, 10, factor);
    rotate<real>(2, 2, 2, factor);
  }
}

int main() {
  all<float>();
  all<double>();
  Array<int32_t> positions({3});
  Array<float> odd({3, 5});
  CallBuilder call;
  call.add(positions).add(odd).real(1e4).real(1).real(1).real(4).real(8192);
  EXPECT(REFUSAL(call, rope_table) == "the head size is 5; expected: even and at most 1024");
  return finish("rope");
}
