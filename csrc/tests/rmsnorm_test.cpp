// rmsnorm, add_rmsnorm and rmsnorm_backward against f64 loops, on strided rows of odd lengths; dw does not depend on the number of threads.
#include "test.h"

using namespace titan;
using namespace titan::test;

constexpr double EPSILON = 1e-5;

template <class real>
void norms(int64_t N, int64_t D) {
  const double eps = sizeof(real) == 4 ? 5e-6 : 1e-13;
  Array<real> x({N, D}, {D + 3, 1}), r({N, D}), w({D}), s({N, D}), y({N, D}, {2 * D, 1}), rstd({N}), dy({N, D}), dx({N, D}, {D + 1, 1}), dw({D});
  x.random(1), r.random(2), w.random(3), dy.random(4);
  CallBuilder forward;
  forward.add(x).add(r).add(w).add(s).add(y).add(rstd).real(EPSILON);
  RUN(forward, add_rmsnorm, 2);
  std::vector<double> q(size_t(N), 0.0);
  for (int64_t n = 0; n < N; n++) {
    for (int64_t d = 0; d < D; d++) q[size_t(n)] += std::pow(double(x[n * D + d]) + double(r[n * D + d]), 2) / double(D);
    q[size_t(n)] = 1 / std::sqrt(q[size_t(n)] + EPSILON);
    EXPECT_NEAR(double(rstd[n]), q[size_t(n)], eps * q[size_t(n)]);
    for (int64_t d = 0; d < D; d++) {
      const double sum = double(x[n * D + d]) + double(r[n * D + d]);
      EXPECT_NEAR(double(s[n * D + d]), sum, eps);
      EXPECT_NEAR(double(y[n * D + d]), sum * q[size_t(n)] * double(w[d]), 10 * eps);
    }
  }
  Array<real> alone = y, rstd_alone = rstd;
  alone.fill([](int64_t) { return 0; });
  CallBuilder plain;
  plain.add(s).add(w).add(alone).add(rstd_alone).real(EPSILON);
  RUN(plain, rmsnorm, 1);
  EXPECT(alone == y && rstd_alone == rstd);

  for (const bool with_residual : {false, true})
    for (const int accumulate : {0, 1}) {
      std::vector<Array<real>> dws, dxs;
      for (int threads : {1, 2}) {
        dw.fill([](int64_t d) { return double(d); });
        CallBuilder backward;
        backward.add(s).add(rstd).add(w).add(dy);
        with_residual ? backward.add(r) : backward.absent();
        backward.add(dx).add(dw).scratch(std::min<int64_t>(N, 64) * D * int64_t(sizeof(real))).integer(accumulate);
        RUN(backward, rmsnorm_backward, threads);
        dws.push_back(dw), dxs.push_back(dx);
      }
      EXPECT(dws[0] == dws[1] && dxs[0] == dxs[1]);
      std::vector<double> expected(size_t(D), 0.0);
      for (int64_t d = 0; d < D; d++) expected[size_t(d)] = accumulate ? double(d) : 0;
      for (int64_t n = 0; n < N; n++) {
        double mean = 0;
        for (int64_t d = 0; d < D; d++) mean += double(dy[n * D + d]) * double(w[d]) * double(s[n * D + d]) / double(D);
        for (int64_t d = 0; d < D; d++) {
          const double g = double(dy[n * D + d]), v = double(s[n * D + d]), Q = q[size_t(n)];
          expected[size_t(d)] += g * v * Q;
          EXPECT_NEAR(double(dx[n * D + d]), g * double(w[d]) * Q - v * Q * Q * Q * mean + (with_residual ? double(r[n * D + d]) : 0), 20 * eps);
        }
      }
      for (int64_t d = 0; d < D; d++) EXPECT_NEAR(double(dw[d]), expected[size_t(d)], eps * (20 + double(N) / 10 + double(d)));
    }
  EXPECT(y.guarded() && s.guarded() && dx.guarded() && dw.guarded() && rstd.guarded());
}

/// The gradient may overwrite the gradient it came from, and the norm its input.
template <class real>
void in_place() {
  Array<real> x({9, 100}), w({100}), rstd({9}), separate({9, 100});
  x.random(1), w.random(2);
  CallBuilder apart, over;
  apart.add(x).add(w).add(separate).add(rstd).real(EPSILON);
  RUN(apart, rmsnorm, 1);
  over.add(x).add(w).add(x).add(rstd).real(EPSILON);
  RUN(over, rmsnorm, 2);
  EXPECT(x == separate);
}

void refusals() {
  Array<float> x({4, 8}), w({8}), y({4, 8}, {1, 4}), rstd({4}), short_w({7});
  CallBuilder strided, narrow;
  strided.add(x).add(w).add(y).add(rstd).real(EPSILON);
  EXPECT(REFUSAL(strided, rmsnorm) == "operand 2 (y) has strides [1, 4]; expected: the last one to be 1");
  narrow.add(x).add(short_w).add(x).add(rstd).real(EPSILON);
  EXPECT(REFUSAL(narrow, rmsnorm) == "operand 1 (w) has dims [7]; expected: [8]");
  CallBuilder poor;
  poor.add(x).add(rstd).add(w).add(x).absent().add(x).add(w).scratch(4).integer(0);
  EXPECT(REFUSAL(poor, rmsnorm_backward) == "operand 7 (scratch) holds 4 bytes; expected: at least 128");
}

template <class real>
void all() {
  norms<real>(1, 1);
  norms<real>(3, 17);
  norms<real>(150, 256);
  norms<real>(65, 300);
  norms<real>(3, 4101);  // more columns than a block of a GPU sums in shared memory
  in_place<real>();
}

int main() {
  all<float>();
  all<double>();
  refusals();
  return finish("rmsnorm");
}
