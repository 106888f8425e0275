// adamw over several parameters of odd sizes against f64 loops, in place and not; sum_squares over the same; a scale that is not finite changes nothing.
#include "test.h"

using namespace titan;
using namespace titan::test;

template <class real>
void steps(bool in_place, double scale_value) {
  const std::vector<std::vector<int64_t>> shapes = {{3}, {5000, 2}, {1}, {17, 31}, {64}};
  const size_t n = shapes.size();
  const double lr_value = 0.01, step_value = 3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.1;
  std::vector<std::vector<Array<real>>> outcomes;
  std::vector<Array<real>> p, m, v, g;
  for (size_t k = 0; k < n; k++) {
    p.emplace_back(shapes[k]).random(unsigned(k)), m.emplace_back(shapes[k]).random(unsigned(k) + 10, 0.1), g.emplace_back(shapes[k]).random(unsigned(k) + 20);
    v.emplace_back(shapes[k]).random(unsigned(k) + 30);
    for (int64_t i = 0; i < v[k].size(); i++) v[k][i] = std::fabs(v[k][i]);
  }
  Array<real> lr({}), step({}), scale({});
  lr[0] = real(lr_value), step[0] = real(step_value), scale[0] = real(scale_value);
  for (int threads : {1, 2, 3}) {
    auto p1 = p, m1 = m, v1 = v;
    auto p2 = p, m2 = m, v2 = v;
    if (!in_place)
      for (auto* group : {&p2, &m2, &v2})
        for (auto& array : *group) array.fill([](int64_t) { return 0; });
    auto &po = in_place ? p1 : p2, &mo = in_place ? m1 : m2, &vo = in_place ? v1 : v2;
    CallBuilder call;
    for (auto* group : {&p1, &m1, &v1, &g})
      for (auto& array : *group) call.add(array);
    call.add(lr).add(step).add(scale);
    for (auto* group : {&po, &mo, &vo})
      for (auto& array : *group) call.add(array);
    call.integer(int64_t(n)).real(beta1).real(beta2).real(eps).real(decay);
    RUN(call, adamw, threads);
    std::vector<Array<real>> all;
    for (auto* group : {&po, &mo, &vo}) all.insert(all.end(), group->begin(), group->end());
    outcomes.push_back(all);
  }
  EXPECT(outcomes[0] == outcomes[1] && outcomes[0] == outcomes[2]);
  const double tolerance = sizeof(real) == 4 ? 1e-6 : 1e-14;
  for (size_t k = 0; k < n; k++) {
    for (int64_t i = 0; i < p[k].size(); i++) {
      const double gradient = double(g[k][i]) * scale_value, mean = beta1 * double(m[k][i]) + (1 - beta1) * gradient, square = beta2 * double(v[k][i]) + (1 - beta2) * gradient * gradient;
      const double root = std::sqrt(square / (1 - std::pow(beta2, step_value))) + eps;
      const bool moves = std::isfinite(scale_value);
      EXPECT_NEAR(double(outcomes[0][k][i]), moves ? (1 - lr_value * decay) * double(p[k][i]) - lr_value / (1 - std::pow(beta1, step_value)) * mean / root : double(p[k][i]), moves ? 3 * tolerance : 0);
      EXPECT_NEAR(double(outcomes[0][n + k][i]), moves ? mean : double(m[k][i]), moves ? tolerance : 0);
      EXPECT_NEAR(double(outcomes[0][2 * n + k][i]), moves ? square : double(v[k][i]), moves ? tolerance * 5 : 0);
    }
    EXPECT(outcomes[0][k].guarded());
  }
}

template <class real>
void squares() {
  Array<real> a({10000, 3}), b({4097}), c({1}), y1({}), y2({});
  a.random(1), b.random(2), c.random(3);
  double expected = 0;
  for (auto* x : {&a, &b, &c})
    for (int64_t i = 0; i < x->size(); i++) expected += double((*x)[i]) * double((*x)[i]);
  for (auto* y : {&y1, &y2}) {
    CallBuilder call;
    call.add(a).add(b).add(c).add(*y).scratch(8 * (8 + 2 + 1));
    RUN(call, sum_squares, y == &y1 ? 1 : 2);
  }
  EXPECT(y1 == y2);
  EXPECT_NEAR(double(y1[0]), expected, expected * (sizeof(real) == 4 ? 1e-6 : 1e-14));
  a[12345] = real(NAN);
  CallBuilder call, poor;
  call.add(a).add(y1).scratch(64);
  RUN(call, sum_squares, 2);
  EXPECT(std::isnan(y1[0]));
  poor.add(a).add(y1).scratch(56);
  EXPECT(REFUSAL(poor, sum_squares) == "operand 2 (scratch) holds 56 bytes; expected: at least 64");
}

template <class real>
void all() {
  for (bool in_place : {true, false})
    for (double scale : {0.5, double(NAN), double(INFINITY)}) steps<real>(in_place, scale);
  squares<real>();
}

int main() {
  all<float>();
  all<double>();
  Array<float> p({4}), g({5}), s({});
  CallBuilder call;
  call.add(p).add(p).add(p).add(g).add(s).add(s).add(s).add(p).add(p).add(p).integer(1).real(0.9).real(0.95).real(1e-8).real(0);
  EXPECT(REFUSAL(call, adamw) == "g[0] has 5 elements; expected: 4 as its parameter");
  return finish("adamw");
}
