// attention and its gradient against naive f64 loops: head sizes, ragged lengths, grouped heads, rotary tables, documents, permuted and
// offset positions, q|k|v as views of one product and dq|dk|dv of one buffer, queries that see nothing, NaN, thread counts.
#include "test.h"

using namespace titan;
using namespace titan::test;

struct Case {
  int64_t B, T, S, H, G, K;
  bool tables = false, documents = false, permuted = false;
  int64_t query_offset = 0;  // added to the query positions (as when decoding); negative: the first queries see nothing
};

template <class real>
struct Problem {
  Case c;
  double scale;
  bool joined;  // T = S: one buffer [B, T, (H + 2 G) K] holds q|k|v, as a joined projection leaves them
  Array<real> qkv, dqkv, q, k, v, dq, dk, dv, o, grad, lse, q_table, k_table;
  Array<int32_t> q_positions, k_positions, q_documents, k_documents;

  explicit Problem(const Case& c_)
      : c(c_), scale(1 / std::sqrt(double(c.K)) * 1.1), joined(c.T == c.S), qkv({c.B, c.S, (c.H + 2 * c.G) * c.K + 3}), dqkv(qkv), q({c.B, c.T, c.H, c.K}), k({c.B, c.S, c.G, c.K}), v(k), dq(q), dk(k), dv(k),
        o({c.B, c.T, c.H, c.K}, {c.T * (c.H * c.K + 5), c.H * c.K + 5, c.K, 1}), grad(o), lse({c.B, c.H, c.T}), q_table({c.B, c.T, c.K}), k_table({c.B, c.S, c.K}), q_positions({c.B, c.T}), k_positions({c.B, c.S}),
        q_documents({c.B, c.T}), k_documents({c.B, c.S}) {
    qkv.random(1), q.random(2), k.random(3), v.random(4), grad.random(5);
    auto place = [&](int64_t i, int64_t n) { return c.permuted ? (i * 5 + 2) % n : i; };  // 5 is prime to the lengths used
    q_positions.fill([&](int64_t i) { return double(place(i % c.T, c.T) + c.query_offset); });
    k_positions.fill([&](int64_t i) { return double(place(i % c.S, c.S)); });
    auto document = [&](int64_t position) { return double(position < 0 ? 0 : position / 37); };
    q_documents.fill([&](int64_t i) { return document(q_positions[i]); });
    k_documents.fill([&](int64_t i) { return document(k_positions[i]); });
    auto angle = [&](int64_t position, int64_t i) { return double(position) * std::pow(100.0, -double(i / 2 * 2) / double(c.K)); };
    q_table.fill([&](int64_t i) { const double a = angle(q_positions[i / c.K], i % c.K); return i % 2 ? std::sin(a) : std::cos(a); });
    k_table.fill([&](int64_t i) { const double a = angle(k_positions[i / c.K], i % c.K); return i % 2 ? std::sin(a) : std::cos(a); });
  }
  /// q, k, v (or their gradients): own arrays, or views of the joined buffer.
  Tensor part(int which, bool gradient) const {
    const Array<real>& own = gradient ? (which == 0 ? dq : which == 1 ? dk : dv) : (which == 0 ? q : which == 1 ? k : v);
    Tensor t = own.tensor();
    if (!joined) return t;
    const Array<real>& whole = gradient ? dqkv : qkv;
    t.data = const_cast<real*>(whole.data()) + (which == 0 ? 0 : which == 1 ? c.H : c.H + c.G) * c.K;
    t.strides[0] = whole.strides[0], t.strides[1] = whole.strides[1], t.strides[2] = c.K;
    return t;
  }
  static double at(const Tensor& t, int64_t b, int64_t i, int64_t h, int64_t d) { return double(t.as<real>()[b * t.strides[0] + i * t.strides[1] + h * t.strides[2] + d]); }
  void add_tokens(CallBuilder& call) const {
    c.tables ? call.add(q_table).add(k_table) : call.absent().absent();
    call.add(q_positions).add(k_positions);
    c.documents ? call.add(q_documents).add(k_documents) : call.absent().absent();
  }
  int64_t scratch(bool backward, int threads) const {
    const int64_t P = (c.K + 15) / 16 * 16, keys = (c.S + 63) / 64 * 64, e = sizeof(real);
    const int64_t one = backward ? e * (4 * keys * P + 5 * 64 * P + 2 * 64 * 64) : e * (2 * keys * P + 2 * 64 * P + 64 * 64);
    return threads * ((one + keys / 4 + 63) / 64 * 64);
  }
  void forward(int threads) {
    CallBuilder call;
    call.operands = {part(0, false), part(1, false), part(2, false)};
    add_tokens(call);
    call.add(o).add(lse).scratch(scratch(false, threads)).real(scale).integer(0);
    RUN(call, attention, threads);
  }
  void backward(int threads) {
    CallBuilder call;
    call.operands = {part(0, false), part(1, false), part(2, false)};
    call.add(o).add(lse).add(grad);
    add_tokens(call);
    for (int i = 0; i < 3; i++) call.operands.push_back(part(i, true));
    call.scratch(scratch(true, threads)).real(scale).integer(0);
    RUN(call, attention_backward, threads);
  }
};

std::vector<double> turned(std::vector<double> x, const double* table, double direction) {
  for (size_t i = 0; table && i < x.size(); i += 2) {
    const double c = table[i], s = direction * table[i + 1], a = x[i], b = x[i + 1];
    x[i] = a * c - b * s, x[i + 1] = b * c + a * s;
  }
  return x;
}

template <class real>
void compare(const Case& c) {
  Problem<real> one(c), two(c);
  one.forward(1), two.forward(2);
  EXPECT(one.o == two.o && one.lse == two.lse);
  one.backward(1), two.backward(2);
  EXPECT(one.dqkv == two.dqkv && one.dq == two.dq && one.dk == two.dk && one.dv == two.dv);
  EXPECT(one.o.guarded() && one.lse.guarded() && one.dqkv.guarded() && one.dq.guarded() && one.dk.guarded() && one.dv.guarded());

  const double eps = sizeof(real) == 4 ? 3e-6 : 1e-13;
  const Tensor q = one.part(0, false), k = one.part(1, false), v = one.part(2, false);
  const int64_t K = c.K;
  auto head = [&](const Tensor& t, int64_t b, int64_t i, int64_t h) {
    std::vector<double> x;
    for (int64_t d = 0; d < K; d++) x.push_back(Problem<real>::at(t, b, i, h, d));
    return x;
  };
  auto angles = [&](const Array<real>& table, int64_t row, std::vector<double>& to) -> const double* {
    to.clear();
    for (int64_t d = 0; d < K; d++) to.push_back(double(table[row * K + d]));
    return c.tables ? to.data() : nullptr;
  };
  std::vector<double> table;
  for (int64_t b = 0; b < c.B; b++) {
    std::vector<std::vector<double>> dk(size_t(c.S * c.G), std::vector<double>(size_t(K))), dv = dk;
    double most_dk = 1;
    for (int64_t h = 0; h < c.H; h++)
      for (int64_t t = 0; t < c.T; t++) {
        const int64_t g = h / (c.H / c.G);
        const auto qt = turned(head(q, b, t, h), angles(one.q_table, b * c.T + t, table), 1), go = head(one.grad.tensor(), b, t, h);
        std::vector<double> s(size_t(c.S), -INFINITY), out(size_t(K), 0.0), dq(size_t(K), 0.0);
        double most = -INFINITY, sum = 0, delta = 0;
        for (int64_t j = 0; j < c.S; j++) {
          if (one.k_positions[b * c.S + j] > one.q_positions[b * c.T + t] || (c.documents && one.k_documents[b * c.S + j] != one.q_documents[b * c.T + t])) continue;
          const auto kj = turned(head(k, b, j, g), angles(one.k_table, b * c.S + j, table), 1);
          double dot = 0;
          for (int64_t d = 0; d < K; d++) dot += qt[size_t(d)] * kj[size_t(d)];
          s[size_t(j)] = dot * one.scale, most = std::max(most, s[size_t(j)]);
        }
        for (int64_t j = 0; j < c.S; j++)
          if (s[size_t(j)] > -INFINITY) sum += std::exp(s[size_t(j)] - most);
        const double lse = sum > 0 ? most + std::log(sum) : -INFINITY;
        auto p = [&](int64_t j) { return s[size_t(j)] > -INFINITY ? std::exp(s[size_t(j)] - lse) : 0; };
        for (int64_t j = 0; j < c.S; j++)
          for (int64_t d = 0; d < K && p(j) > 0; d++) out[size_t(d)] += p(j) * Problem<real>::at(v, b, j, g, d);
        EXPECT_NEAR(double(one.lse[(b * c.H + h) * c.T + t]), lse, eps * 3);
        for (int64_t d = 0; d < K; d++) {
          EXPECT_NEAR(Problem<real>::at(one.o.tensor(), b, t, h, d), out[size_t(d)], eps);
          delta += out[size_t(d)] * go[size_t(d)];
        }
        for (int64_t j = 0; j < c.S; j++) {
          if (p(j) == 0) continue;
          const auto kj = turned(head(k, b, j, g), angles(one.k_table, b * c.S + j, table), 1), vj = head(v, b, j, g);
          double dp = 0;
          for (int64_t d = 0; d < K; d++) dp += go[size_t(d)] * vj[size_t(d)];
          const double ds = p(j) * (dp - delta) * one.scale;
          for (int64_t d = 0; d < K; d++) {
            dq[size_t(d)] += ds * kj[size_t(d)];
            dk[size_t(j * c.G + g)][size_t(d)] += ds * qt[size_t(d)];
            dv[size_t(j * c.G + g)][size_t(d)] += p(j) * go[size_t(d)];
          }
        }
        dq = turned(dq, angles(one.q_table, b * c.T + t, table), -1);
        for (int64_t d = 0; d < K; d++) EXPECT_NEAR(Problem<real>::at(one.part(0, true), b, t, h, d), dq[size_t(d)], eps * 10);
      }
    for (auto& row : dk)
      for (double x : row) most_dk = std::max(most_dk, std::fabs(x));
    for (int64_t j = 0; j < c.S; j++)
      for (int64_t g = 0; g < c.G; g++) {
        const auto expected = turned(dk[size_t(j * c.G + g)], angles(one.k_table, b * c.S + j, table), -1);
        for (int64_t d = 0; d < K; d++) {
          EXPECT_NEAR(Problem<real>::at(one.part(1, true), b, j, g, d), expected[size_t(d)], eps * 10 * most_dk);
          EXPECT_NEAR(Problem<real>::at(one.part(2, true), b, j, g, d), dv[size_t(j * c.G + g)][size_t(d)], eps * 10 * most_dk);
        }
      }
  }
}

template <class real>
void nan_is_seen() {
  for (int which = 0; which < 3; which++) {
    Problem<real> problem({.B = 1, .T = 150, .S = 150, .H = 1, .G = 1, .K = 16});
    problem.part(which, false).template as<real>()[100 * problem.qkv.strides[1]] = real(NAN);
    problem.forward(2);
    EXPECT(std::isnan(problem.o[100 * 16]));
    EXPECT(std::isfinite(double(problem.o[20 * 16])));  // of an earlier tile; in the same tile 0 * NaN is NaN
    problem.backward(2);
    for (int part = 0; part < 3; part++)
      if (part != 2 || which != 2) EXPECT(std::isnan(problem.part(part, true).template as<real>()[100 * problem.qkv.strides[1]]));
  }
}

template <class real>
void all() {
  compare<real>({.B = 2, .T = 128, .S = 128, .H = 2, .G = 2, .K = 16, .tables = true});
  compare<real>({.B = 1, .T = 201, .S = 201, .H = 4, .G = 2, .K = 16, .tables = true, .documents = true});
  compare<real>({.B = 1, .T = 1, .S = 1, .H = 1, .G = 1, .K = 2});
  compare<real>({.B = 1, .T = 7, .S = 7, .H = 3, .G = 1, .K = 6, .tables = true});
  compare<real>({.B = 1, .T = 133, .S = 133, .H = 1, .G = 1, .K = 64, .tables = true, .documents = true, .permuted = true});
  compare<real>({.B = 1, .T = 70, .S = 70, .H = 2, .G = 1, .K = 32, .permuted = true});
  compare<real>({.B = 1, .T = 66, .S = 66, .H = 1, .G = 1, .K = 128});
  compare<real>({.B = 1, .T = 40, .S = 40, .H = 1, .G = 1, .K = 256, .tables = true});
  compare<real>({.B = 1, .T = 65, .S = 65, .H = 1, .G = 1, .K = 50, .tables = true});
  compare<real>({.B = 2, .T = 3, .S = 100, .H = 4, .G = 2, .K = 16, .tables = true, .query_offset = 97});
  compare<real>({.B = 1, .T = 100, .S = 130, .H = 1, .G = 1, .K = 16, .query_offset = -20});
  compare<real>({.B = 1, .T = 100, .S = 100, .H = 1, .G = 1, .K = 16, .documents = true, .query_offset = 45});
  nan_is_seen<real>();
}

int main() {
  all<float>();
  all<double>();
  Problem<float> odd({.B = 1, .T = 4, .S = 4, .H = 3, .G = 2, .K = 8});
  CallBuilder call;
  call.operands = {odd.q.tensor(), odd.k.tensor(), odd.v.tensor()};
  odd.add_tokens(call);
  call.add(odd.o).add(odd.lse).scratch(1 << 20).real(1).integer(0);
  EXPECT(REFUSAL(call, attention) == "there are 3 query heads for 2 key heads; expected: a multiple");
  return finish("attention");
}
