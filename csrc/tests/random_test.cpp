// random: Philox's published test vector, the stated definition, moments, the cut, f32 = cast of f64, threads; boxes of a larger tensor.
#include "test.h"

using namespace titan;
using namespace titan::test;

template <class real>
Array<real> draw(int64_t n, int kind, double a, double b, double low = 0, double high = 0, int threads = 2, int seed = 7, int64_t key = 0x123456789abcdef0) {
  Array<int32_t> seeds({2});
  seeds[0] = seed, seeds[1] = -5;
  Array<real> y({n});
  CallBuilder call;
  call.add(seeds).add(y).integer(kind).integer(key).real(a).real(b).real(low).real(high);
  for (int64_t word : {int64_t(1), n, int64_t(1), int64_t(0), int64_t(1), n}) call.integer(word);
  RUN(call, random, threads);
  EXPECT(y.guarded());
  return y;
}

/// Philox 4x32-10 with counter 0 and key 0 gives 6627e8d5 e169c58d bc57ac4c 9b00dbd8 (Random123's known answers).
void known_answer() {
  Array<int32_t> seeds({2});
  seeds[0] = 0x11, seeds[1] = 0x22;
  Array<double> y({1});
  CallBuilder call;
  call.add(seeds).add(y).integer(0).integer(0x0000002200000011).real(0).real(1).real(0).real(0);
  for (int64_t word : {1, 1, 1, 0, 1, 1}) call.integer(word);
  RUN(call, random, 1);
  EXPECT(y[0] == (double(0x6627e8d5u >> 5) * 67108864 + double(0xe169c58du >> 6) + 0.5) / 9007199254740992.0);
}

double phi(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

void quantiles() {
  const int64_t n = 200000;
  const auto u = draw<double>(n, 0, 0, 1), z = draw<double>(n, 1, 0, 1), cut = draw<double>(n, 2, 1, 2, -1, 2);
  double mean = 0, square = 0;
  for (int64_t i = 0; i < n; i++) {
    EXPECT(u[i] > 0 && u[i] < 1);
    EXPECT_NEAR(phi(z[i]), u[i], 1e-15);
    EXPECT(cut[i] >= -1 && cut[i] <= 2);
    EXPECT_NEAR((phi((cut[i] - 1) / 2) - phi(-1)) / (phi(0.5) - phi(-1)), u[i], 1e-14);
    mean += z[i] / double(n), square += z[i] * z[i] / double(n);
  }
  EXPECT_NEAR(mean, 0, 0.01);
  EXPECT_NEAR(square, 1, 0.02);
  const auto scaled = draw<double>(100, 1, 3, 0.5), between = draw<double>(100, 0, -2, 5);
  for (int64_t i = 0; i < 100; i++) {
    EXPECT_NEAR(scaled[i], 3 + 0.5 * z[i], 1e-14);
    EXPECT_NEAR(between[i], -2 + 7 * u[i], 1e-14);
  }
}

void independence() {
  const auto one = draw<double>(1001, 1, 0, 1, 0, 0, 1), two = draw<double>(1001, 1, 0, 1, 0, 0, 2);
  const auto single = draw<float>(1001, 1, 0, 1);
  const auto fewer = draw<double>(10, 1, 0, 1);
  EXPECT(one == two);
  for (int64_t i = 0; i < 1001; i++) EXPECT(single[i] == float(one[i]));
  for (int64_t i = 0; i < 10; i++) EXPECT(fewer[i] == one[i]);
  EXPECT(draw<double>(4, 0, 0, 1, 0, 0, 1, 8)[0] != draw<double>(4, 0, 0, 1)[0]);
  EXPECT(draw<double>(4, 0, 0, 1, 0, 0, 1, 7, 1)[0] != draw<double>(4, 0, 0, 1)[0]);
}

/// Elements [2..5, 3..7) of a matrix of 4 x 9, the last row outside of it, written to every other row of a larger one.
void boxes() {
  const auto whole = draw<double>(4 * 9, 1, 0, 1);
  Array<int32_t> seeds({2});
  seeds[0] = 7, seeds[1] = -5;
  Array<double> y({3, 4}, {11, 1});
  CallBuilder call, short_list, outside;
  for (CallBuilder* c : {&call, &short_list, &outside}) c->add(seeds).add(y).integer(1).integer(0x123456789abcdef0).real(0).real(1).real(0).real(0);
  for (int64_t word : {2, 4, 9, 2, 2, 3, 2, 4, 9}) call.integer(word);
  RUN(call, random, 2);
  for (int64_t i = 0; i < 3; i++)
    for (int64_t j = 0; j < 4; j++) EXPECT(y[i * 4 + j] == (i < 2 ? whole[(2 + i) * 9 + 3 + j] : 0));
  EXPECT(y.guarded());
  for (int64_t word : {1, 4, 2, 2, 3, 2, 4, 9}) short_list.integer(word);
  EXPECT(REFUSAL(short_list, random).find("expected: 2 numbers each") != std::string::npos);
  for (int64_t word : {2, 4, 9, 2, 2, 3, 2, 5, 9}) outside.integer(word);
  EXPECT(REFUSAL(outside, random).find("the box of dim 0 starts at 2 and ends at 5") != std::string::npos);
}

int main() {
  boxes();
  known_answer();
  quantiles();
  independence();
  Array<int32_t> seeds({2});
  Array<float> y({4});
  CallBuilder call;
  call.add(seeds).add(y).integer(1).integer(0).real(0).real(0).real(0).real(0);
  for (int64_t word : {1, 4, 1, 0, 1, 4}) call.integer(word);
  EXPECT(REFUSAL(call, random).find("standard deviation") != std::string::npos);
  return finish("random");
}
