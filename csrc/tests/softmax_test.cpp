// softmax: rows of every length around the vectors' width, against f64 loops; large and infinite values; NaN; in place; strided rows; the same
// bits for any number of threads.
#include "test.h"

using namespace titan;
using namespace titan::test;

template <class real>
void rows(int64_t N, int64_t D, int64_t stride, double scale) {
  Array<real> x({N, D}, {stride, 1});
  x.random(unsigned(D), scale);
  Array<real> results[2] = {Array<real>({N, D}, {stride, 1}), Array<real>({N, D}, {stride, 1})};
  for (int threads : {1, 2}) {
    CallBuilder call;
    call.add(x).add(results[threads - 1]);
    RUN(call, softmax, threads);
  }
  EXPECT(results[0] == results[1]);
  EXPECT(results[0].guarded());
  for (int64_t n = 0; n < N; n++) {
    double peak = -INFINITY, sum = 0;
    for (int64_t d = 0; d < D; d++) peak = std::max(peak, double(x[n * D + d]));
    for (int64_t d = 0; d < D; d++) sum += std::exp(double(x[n * D + d]) - peak);
    for (int64_t d = 0; d < D; d++) {
      // The difference is rounded before the exponential is taken of it.
      const double below = peak - double(x[n * D + d]), expected = std::exp(-below) / sum;
      EXPECT_NEAR(double(results[0][n * D + d]), expected, expected * (8 + below) * (sizeof(real) == 4 ? 1.2e-7 : 2.3e-16) + 1e-37);
    }
  }
}

template <class real>
void special_values() {
  Array<real> x({3, 20}), y({3, 20});
  x.fill([](int64_t i) { return i < 20 ? (i == 7 ? 1e30 : -1e30) : i < 40 ? (i == 21 ? -INFINITY : 0) : (i == 45 ? NAN : 1); });
  CallBuilder call;
  call.add(x).add(y);
  RUN(call, softmax, 1);
  EXPECT(y[7] == 1 && y[0] == 0);
  EXPECT(y[21] == 0);
  EXPECT_NEAR(double(y[20]), 1.0 / 19, 1e-7);
  for (int64_t d = 40; d < 60; d++) EXPECT(std::isnan(y[d]));
}

template <class real>
void in_place() {
  Array<real> x({5, 33}), y({5, 33});
  x.random(3);
  CallBuilder apart, same;
  apart.add(x).add(y);
  RUN(apart, softmax, 1);
  same.add(x).add(x);
  RUN(same, softmax, 2);
  EXPECT(x == y);
}

int main() {
  for (int64_t D : {1, 3, 7, 8, 15, 16, 17, 31, 33, 64, 1000})
    for (double scale : {1.0, 30.0}) rows<float>(4, D, D + 3, scale), rows<double>(4, D, D, scale);
  special_values<float>(), special_values<double>();
  in_place<float>(), in_place<double>();
  Array<float> x({2, 4}, {1, 2}), y({2, 4});
  CallBuilder columns;
  columns.add(x).add(y);
  EXPECT(!REFUSAL(columns, softmax).empty());
  return finish("softmax");
}
