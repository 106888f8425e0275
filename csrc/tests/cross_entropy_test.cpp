// cross_entropy and its gradient against f64 loops: odd vocabularies, ignored rows, large logits, targets out of range, NaN; slices of a
// vocabulary against the whole.
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
  backward.add(logits).add(targets).add(lse).add(dloss).add(dlogits).integer(IGNORE).integer(0);
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
  over.add(logits).add(targets).add(lse).add(dloss).add(logits).integer(IGNORE).integer(0);
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

/// Columns start to start + V of logits [N, whole].
template <class real>
void slice(int64_t N, int64_t start, int64_t V, int64_t whole) {
  const double eps = sizeof(real) == 4 ? 4e-7 : 1e-14;
  Array<real> logits({N, V}, {V + 3, 1}), lse({N}), logit({N}), all_lse({N}), dloss({}), dlogits({N, V});
  Array<int32_t> targets({N});
  logits.random(1, 2), all_lse.fill([](int64_t) { return 4; }), dloss.fill([](int64_t) { return 0.5; });
  targets.fill([&](int64_t n) { return n == 3 ? IGNORE : double(n % (whole + 2) - 1); });
  for (int threads : {1, 2}) {
    CallBuilder call;
    call.add(logits).add(targets).add(lse).add(logit).integer(IGNORE).integer(start).integer(whole);
    RUN(call, cross_entropy_part, threads);
    for (int64_t n = 0; n < N; n++) {
      const bool own = targets[n] >= start && targets[n] < start + V, other = targets[n] == IGNORE || (targets[n] >= 0 && targets[n] < whole);
      double sum = 0;
      for (int64_t v = 0; v < V; v++) sum += std::exp(double(logits[n * V + v]));
      EXPECT_NEAR(double(lse[n]), std::log(sum), eps * (1 + std::fabs(std::log(sum))));
      EXPECT(own ? logit[n] == logits[n * V + targets[n] - start] : other ? logit[n] == 0 : std::isnan(logit[n]));
    }
  }
  CallBuilder backward, outside;
  backward.add(logits).add(targets).add(all_lse).add(dloss).add(dlogits).integer(IGNORE).integer(start);
  RUN(backward, cross_entropy_backward, 2);
  for (int64_t n = 0; n < N; n++)
    for (int64_t v = 0; v < V; v++)
      EXPECT_NEAR(double(dlogits[n * V + v]), targets[n] == IGNORE ? 0 : 0.5 * (std::exp(double(logits[n * V + v]) - 4) - (v + start == targets[n])), eps * 10);
  EXPECT(lse.guarded() && logit.guarded() && dlogits.guarded());
  outside.add(logits).add(targets).add(lse).add(logit).integer(IGNORE).integer(start).integer(start + V - 1);
  EXPECT(REFUSAL(outside, cross_entropy_part).find("expected: a slice of the whole vocabulary") != std::string::npos);
}

template <class real>
void all() {
  slice<real>(40, 0, 19, 57);
  slice<real>(40, 19, 19, 57);
  slice<real>(40, 38, 19, 57);
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
