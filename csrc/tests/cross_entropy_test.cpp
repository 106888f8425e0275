// cross_entropy and its gradient against f64 loops: odd vocabularies, ignored rows, large logits, targets out of range, NaN.
#include "test.h"

using namespace titan;
using namespace titan::test;

constexpr int IGNORE = -100;

template <class real>
void loss(int64_t N, int64_t V, double size) {
  const double eps = sizeof(real) == 4 ? 4e-7 : 1e-14;
  Array<real> logits({N, V}, {V + 2, 1}), total({}), count({}), lse({N}), dloss({}), dlogits({N, V});
  Array<int32_t> targets({N});
  logits.random(1, size);
  targets.fill([&](int64_t n) { return n % 5 == 3 ? IGNORE : double(n * 7919 % V); });
  dloss.fill([](int64_t) { return 0.25; });
  std::vector<Array<real>> totals;
  for (int threads : {1, 2}) {
    CallBuilder call;
    call.add(logits).add(targets).add(total).add(count).add(lse).scratch(2 * N * int64_t(sizeof(real))).integer(IGNORE);
    RUN(call, cross_entropy, threads);
    totals.push_back(total);
  }
  EXPECT(totals[0] == totals[1]);
  CallBuilder backward, over;
  backward.add(logits).add(targets).add(lse).add(dloss).add(dlogits).integer(IGNORE);
  RUN(backward, cross_entropy_backward, 2);
  double expected = 0, counted = 0;
  for (int64_t n = 0; n < N; n++) {
    double most = -INFINITY, sum = 0;
    for (int64_t v = 0; v < V; v++) most = std::max(most, double(logits[n * V + v]));
    for (int64_t v = 0; v < V; v++) sum += std::exp(double(logits[n * V + v]) - most);
    const double z = most + std::log(sum), scale = 1 + std::fabs(z) + std::fabs(most);
    EXPECT_NEAR(double(lse[n]), z, eps * scale);
    const bool counts = targets[n] != IGNORE;
    if (counts) expected += z - double(logits[n * V + targets[n]]), counted++;
    for (int64_t v = 0; v < V; v++) EXPECT_NEAR(double(dlogits[n * V + v]), counts ? 0.25 * (std::exp(double(logits[n * V + v]) - z) - (v == targets[n])) : 0, eps * scale);
  }
  EXPECT_NEAR(double(total[0]), expected, eps * (size + 5) * double(N));
  EXPECT(double(count[0]) == counted);
  over.add(logits).add(targets).add(lse).add(dloss).add(logits).integer(IGNORE);
  RUN(over, cross_entropy_backward, 1);
  for (int64_t i = 0; i < N * V; i++) EXPECT(logits[i] == dlogits[i]);
  EXPECT(logits.guarded() && dlogits.guarded() && lse.guarded());
}

template <class real>
void trouble() {
  const int64_t V = 100;
  for (int which = 0; which < 2; which++) {
    Array<real> logits({3, V}), total({}), count({}), lse({3});
    Array<int32_t> targets({3});
    logits.random(1), targets.fill([](int64_t n) { return double(n); });
    if (which == 0) logits[V + 77] = real(NAN);
    else targets[1] = V;
    CallBuilder call;
    call.add(logits).add(targets).add(total).add(count).add(lse).scratch(6 * int64_t(sizeof(real))).integer(IGNORE);
    RUN(call, cross_entropy, 2);
    EXPECT(std::isnan(total[0]));
    EXPECT(std::isfinite(lse[0]) && std::isnan(lse[1]) == (which == 0));
  }
}

template <class real>
void all() {
  loss<real>(1, 1, 1);
  loss<real>(13, 37, 1);
  loss<real>(50, 515, 3);
  loss<real>(6, 2048, 40);
  trouble<real>();
}

int main() {
  all<float>();
  all<double>();
  return finish("cross_entropy");
}
