// attention and its gradient against naive f64 loops, in f32, f64, and bf16 products of operands stored as bf16 or f32: head sizes, ragged
// lengths, aligned rows, grouped heads, rotary tables, documents, positions that are permuted, offset or not given, q|k|v as views of one
// product and dq|dk|dv of one buffer, keys in slices, queries that see nothing, NaN, thread counts.
#include "test.h"

using namespace titan;
using namespace titan::test;

struct Case {
  int64_t B, T, S, H, G, K;
  bool tables = false, documents = false, permuted = false;
  bool ordered = false;      // no positions are given: they count from 0
  int64_t query_offset = 0;  // added to the query positions (as when decoding); negative: the first queries see nothing
  bool aligned = false;      // rows begin at multiples of what a thread loads at once
};

/// S: how q, k, v, o and their gradients are stored; `rounds`: the attribute bf16.
template <class S, bool rounds = std::is_same_v<S, bf16>>
struct Problem {
  using real = std::conditional_t<std::is_same_v<S, double>, double, float>;
  Case c;
  double scale;
  bool joined;  // T = S: one buffer [B, T, (H + 2 G) K] holds q|k|v, as a joined projection leaves them
  Array<S> qkv, dqkv, q, k, v, dq, dk, dv, o, grad;
  Array<real> lse, q_table, k_table;
  Array<int32_t> q_positions, k_positions, q_documents, k_documents;

  explicit Problem(const Case& c_)
      : c(c_), scale(1 / std::sqrt(double(c.K)) * 1.1), joined(c.T == c.S), qkv({c.B, c.S, (c.H + 2 * c.G) * c.K + (c.aligned ? 8 : 3)}), dqkv(qkv), q({c.B, c.T, c.H, c.K}), k({c.B, c.S, c.G, c.K}), v(k), dq(q), dk(k), dv(k),
        o({c.B, c.T, c.H, c.K}, {c.T * (c.H * c.K + (c.aligned ? 8 : 5)), c.H * c.K + (c.aligned ? 8 : 5), c.K, 1}), grad(o), lse({c.B, c.H, c.T}), q_table({c.B, c.T, c.K}), k_table({c.B, c.S, c.K}), q_positions({c.B, c.T}), k_positions({c.B, c.S}),
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
    const Array<S>& own = gradient ? (which == 0 ? dq : which == 1 ? dk : dv) : (which == 0 ? q : which == 1 ? k : v);
    Tensor t = own.tensor();
    if (!joined) return t;
    const Array<S>& whole = gradient ? dqkv : qkv;
    t.data = const_cast<S*>(whole.data()) + (which == 0 ? 0 : which == 1 ? c.H : c.H + c.G) * c.K;
    t.strides[0] = whole.strides[0], t.strides[1] = whole.strides[1], t.strides[2] = c.K;
    return t;
  }
  static double at(const Tensor& t, int64_t b, int64_t i, int64_t h, int64_t d) { return double(t.as<S>()[b * t.strides[0] + i * t.strides[1] + h * t.strides[2] + d]); }
  void add_tokens(CallBuilder& call) const {
    c.tables ? call.add(q_table).add(k_table) : call.absent().absent();
    c.ordered ? call.absent().absent() : call.add(q_positions).add(k_positions);
    c.documents ? call.add(q_documents).add(k_documents) : call.absent().absent();
  }
  static Tensor slice(Tensor t, int64_t begin, int64_t end) {
    if (t.data) t.data = t.as<char>() + begin * t.strides[1] * int64_t(size_of(t.dtype)), t.dims[1] = end - begin;
    return t;
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
    call.absent().absent().add(o).add(lse).scratch(scratch(false, threads)).real(scale).integer(rounds);
    RUN(call, attention, threads);
  }
  /// Keys in slices, the last one first, each on top of what came before: in place, or from elsewhere, padded with what may not be read.
  void forward_in_slices(int slices, int threads, bool in_place) {
    Array<real> exact(o.dims, o.strides), other_o({c.B, c.T, c.H, c.K + 7}), other_lse({c.B, c.H, c.T + 1});
    for (int n = slices - 1; n >= 0; n--) {
      const int64_t begin = c.S * n / slices, end = c.S * (n + 1) / slices;
      CallBuilder call;
      call.operands = {part(0, false), part(1, false), part(2, false)};
      add_tokens(call);
      for (int i : {1, 2, 4, 6, 8}) call.operands[size_t(i)] = slice(call.operands[size_t(i)], begin, end);
      if (n == slices - 1) {
        call.absent().absent();
      } else if (in_place) {
        call.add(exact).add(lse);
      } else {
        other_o.fill([](int64_t) { return NAN; }), other_lse.fill([](int64_t) { return NAN; });
        for (int64_t i = 0; i < exact.size(); i++) other_o[i / c.K * (c.K + 7) + i % c.K] = exact[i];
        for (int64_t i = 0; i < lse.size(); i++) other_lse[i / c.T * (c.T + 1) + i % c.T] = lse[i];
        call.add(other_o).add(other_lse);
        call.operands[9].dims[3] = c.K, call.operands[10].dims[2] = c.T;
      }
      call.add(exact).add(lse).scratch(scratch(false, threads)).real(scale).integer(rounds);
      RUN(call, attention, threads);
    }
    EXPECT(exact.guarded() && lse.guarded());
    o.fill([&](int64_t i) { return double(exact[i]); });
  }
  void backward(int threads) {
    CallBuilder call;
    call.operands = {part(0, false), part(1, false), part(2, false)};
    call.add(o).add(lse).add(grad);
    add_tokens(call);
    for (int i = 0; i < 3; i++) call.operands.push_back(part(i, true));
    call.scratch(scratch(true, threads)).real(scale).integer(rounds);
    RUN(call, attention_backward, threads);
  }
};

using Rows = std::vector<std::vector<double>>;  // [tokens and heads][K]

/// What `problem` should hold after forward and backward. Where products are of bf16, so are the operands here: q (turned, with scale and
/// log2 e), k (turned), v and do; not the probabilities and their gradients.
template <class S, bool rounds>
struct Reference {
  Rows o, dq, dk, dv;
  std::vector<double> lse;

  explicit Reference(const Problem<S, rounds>& problem) {
    const Case& c = problem.c;
    const double factor = problem.scale / std::log(2.0);
    Rows q = rows(problem.part(0, false)), k = rows(problem.part(1, false)), v = rows(problem.part(2, false)), grad = rows(problem.grad.tensor());
    if (c.tables) turn(q, problem.q_table, c.H, 1), turn(k, problem.k_table, c.G, 1);
    for (Rows* x : {&q, &k, &v, &grad})
      for (auto& row : *x)
        for (double& value : row) value = !rounds ? value : x == &q ? double(bf16(float(value * factor))) / factor : double(bf16(float(value)));
    const std::vector<double> zeros(size_t(c.K), 0.0);
    o.assign(q.size(), zeros), dq = o, dk.assign(k.size(), zeros), dv = dk, lse.assign(q.size(), -INFINITY);
    for (int64_t b = 0; b < c.B; b++)
      for (int64_t t = 0; t < c.T; t++)
        for (int64_t h = 0; h < c.H; h++) {
          const size_t i = size_t((b * c.T + t) * c.H + h);
          std::vector<size_t> seen;  // rows of keys
          std::vector<double> p;
          for (int64_t j = 0; j < c.S; j++) {
            if (problem.k_positions[b * c.S + j] > problem.q_positions[b * c.T + t] || (c.documents && problem.k_documents[b * c.S + j] != problem.q_documents[b * c.T + t])) continue;
            seen.push_back(size_t((b * c.S + j) * c.G + h / (c.H / c.G)));
            p.push_back(dot(q[i], k[seen.back()]) * problem.scale);
          }
          if (seen.empty()) continue;
          double most = -INFINITY, sum = 0;
          for (double x : p) most = std::max(most, x);
          for (double x : p) sum += std::exp(x - most);
          lse[size_t((b * c.H + h) * c.T + t)] = most + std::log(sum);
          for (double& x : p) x = std::exp(x - most) / sum;
          for (size_t n = 0; n < seen.size(); n++) add(o[i], p[n], v[seen[n]]);
          const double delta = dot(o[i], grad[i]);
          for (size_t n = 0; n < seen.size(); n++) {
            const double ds = p[n] * (dot(grad[i], v[seen[n]]) - delta) * problem.scale;
            add(dq[i], ds, k[seen[n]]), add(dk[seen[n]], ds, q[i]), add(dv[seen[n]], p[n], grad[i]);
          }
        }
    if (c.tables) turn(dq, problem.q_table, c.H, -1), turn(dk, problem.k_table, c.G, -1);
  }

 private:
  static double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t d = 0; d < a.size(); d++) sum += a[d] * b[d];
    return sum;
  }
  static void add(std::vector<double>& to, double factor, const std::vector<double>& x) {
    for (size_t d = 0; d < x.size(); d++) to[d] += factor * x[d];
  }
  template <class A>
  static void turn(Rows& x, const A& table, int64_t heads, double direction) {
    for (size_t i = 0; i < x.size(); i++)
      for (size_t d = 0; d < x[i].size(); d += 2) {
        const int64_t at = int64_t(i) / heads * int64_t(x[i].size()) + int64_t(d);
        const double cosine = table[at], sine = direction * table[at + 1], a = x[i][d], b = x[i][d + 1];
        x[i][d] = a * cosine - b * sine, x[i][d + 1] = b * cosine + a * sine;
      }
  }
  static Rows rows(const Tensor& t) {
    Rows x;
    for (int64_t b = 0; b < t.dims[0]; b++)
      for (int64_t i = 0; i < t.dims[1]; i++)
        for (int64_t h = 0; h < t.dims[2]; h++) {
          x.emplace_back();
          for (int64_t d = 0; d < t.dims[3]; d++) x.back().push_back(Problem<S, rounds>::at(t, b, i, h, d));
        }
    return x;
  }
};

/// Every element of `actual` within `bound` times the largest of the expected ones (at least 1).
template <class S, bool rounds>
void expect_near(const char* name, const Case& c, const Tensor& actual, const Rows& expected, double bound) {
  double most = 1, worst = 0;
  for (auto& row : expected)
    for (double x : row) most = std::max(most, std::fabs(x));
  size_t i = 0;
  for (int64_t b = 0; b < actual.dims[0]; b++)
    for (int64_t t = 0; t < actual.dims[1]; t++)
      for (int64_t h = 0; h < actual.dims[2]; h++, i++)
        for (int64_t d = 0; d < actual.dims[3]; d++) {
          const double error = std::fabs(Problem<S, rounds>::at(actual, b, t, h, d) - expected[i][size_t(d)]) / most;
          if (!(error <= worst)) worst = error;  // NaN too
        }
  if (worst <= bound) return;
  std::printf("%s of B %d T %d S %d H %d G %d K %d errs by %g of its largest, expected: %g\n", name, int(c.B), int(c.T), int(c.S), int(c.H), int(c.G), int(c.K), worst, bound);
  failures++;
}

template <class S, bool rounds>
void compare(Case c) {
  if (EMULATED && !std::is_same_v<S, bf16>) {  // two tiles at least are left of what has many; those of tensor cores are larger, and emulated faster
    const bool square = c.T == c.S;
    c.query_offset = c.query_offset * std::min<int64_t>(c.S, 45) / c.S;
    c.T = std::min<int64_t>(c.T, 37), c.S = square ? c.T : std::min<int64_t>(c.S, 45);
  }
  Problem<S, rounds> one(c);
  one.forward(1), one.backward(1);
  EXPECT(one.o.guarded() && one.lse.guarded() && one.dqkv.guarded() && one.dq.guarded() && one.dk.guarded() && one.dv.guarded());
  for (int threads = 2; threads <= 4; threads++) {
    if (threads != 3 && few_shapes()) continue;
    Problem<S, rounds> more(c);
    more.forward(threads);
    EXPECT(one.o == more.o && one.lse == more.lse);
    more.backward(threads);
    EXPECT(one.dqkv == more.dqkv && one.dq == more.dq && one.dk == more.dk && one.dv == more.dv);
  }
  const Reference<S, rounds> expected(one);
  const double bound = rounds ? 1.0 / 128 : sizeof(S) == 4 ? 4e-6 : 1e-14;
  for (int64_t i = 0; i < one.lse.size(); i++) EXPECT_NEAR(double(one.lse[i]), expected.lse[size_t(i)], bound);
  expect_near<S, rounds>("o", c, one.o.tensor(), expected.o, bound);
  const auto same_in_slices = [&](int slices, bool in_place) {
    Problem<S, rounds> parts(c);
    parts.forward_in_slices(slices, slices, in_place);
    for (int64_t i = 0; i < parts.lse.size(); i++) EXPECT_NEAR(double(parts.lse[i]), expected.lse[size_t(i)], bound);
    expect_near<S, rounds>("o of slices", c, parts.o.tensor(), expected.o, bound);
  };
  if (c.S >= 3 && !c.ordered) same_in_slices(2, false), same_in_slices(3, true);
  expect_near<S, rounds>("dq", c, one.part(0, true), expected.dq, bound);
  expect_near<S, rounds>("dk", c, one.part(1, true), expected.dk, bound);
  expect_near<S, rounds>("dv", c, one.part(2, true), expected.dv, bound);
}

template <class S, bool rounds>
void nan_is_seen() {
  for (int which = EMULATED ? 2 : 0; which < 3; which++) {
    Problem<S, rounds> problem({.B = 1, .T = 150, .S = 150, .H = 1, .G = 1, .K = 16});
    problem.part(which, false).template as<S>()[100 * problem.qkv.strides[1]] = S(NAN);
    problem.forward(2);
    EXPECT(std::isnan(double(problem.o[100 * 16])));
    EXPECT(std::isfinite(double(problem.o[20 * 16])));  // of an earlier tile; in the same tile 0 * NaN is NaN
    problem.backward(2);
    for (int part = 0; part < 3; part++)
      if (part != 2 || which != 2) EXPECT(std::isnan(double(problem.part(part, true).template as<S>()[100 * problem.qkv.strides[1]])));
  }
}

/// What lies in blocks of keys that no query sees is not even read as a number.
template <class S, bool rounds>
void unseen_keys_do_not_matter() {
  for (const int64_t T : {1, 40}) {
    Problem<S, rounds> problem({.B = 1, .T = T, .S = 300, .H = 2, .G = 1, .K = 16, .query_offset = 10});
    problem.forward(2);
    const auto before = problem.o;
    for (int64_t s = 64; s < 300; s++) problem.k[s * 16] = problem.v[s * 16 + 3] = S(NAN);
    problem.forward(2);
    EXPECT(problem.o == before);
  }
}

template <class S, bool rounds = std::is_same_v<S, bf16>>
void all() {
  compare<S, rounds>({.B = 2, .T = 128, .S = 128, .H = 2, .G = 2, .K = 16, .tables = true});
  compare<S, rounds>({.B = 1, .T = 201, .S = 201, .H = 4, .G = 2, .K = 16, .tables = true, .documents = true});
  compare<S, rounds>({.B = 1, .T = 1, .S = 1, .H = 1, .G = 1, .K = 2});
  compare<S, rounds>({.B = 1, .T = 7, .S = 7, .H = 3, .G = 1, .K = 6, .tables = true});
  compare<S, rounds>({.B = 1, .T = 133, .S = 133, .H = 1, .G = 1, .K = 64, .tables = true, .documents = true, .permuted = true});
  compare<S, rounds>({.B = 1, .T = 70, .S = 70, .H = 2, .G = 1, .K = 32, .permuted = true});
  compare<S, rounds>({.B = 1, .T = 65, .S = 65, .H = 1, .G = 1, .K = 50, .tables = true});
  for (int64_t K : {24, 40, 80, 96, 128, 192, 256}) compare<S, rounds>({.B = 1, .T = 71, .S = 71, .H = 2, .G = 1, .K = K, .tables = true});
  compare<S, rounds>({.B = 1, .T = 90, .S = 90, .H = 8, .G = 1, .K = 16, .tables = true});
  compare<S, rounds>({.B = 2, .T = 3, .S = 100, .H = 4, .G = 2, .K = 16, .tables = true, .query_offset = 97});
  compare<S, rounds>({.B = 1, .T = 100, .S = 130, .H = 1, .G = 1, .K = 16, .query_offset = -20});
  compare<S, rounds>({.B = 1, .T = 100, .S = 100, .H = 1, .G = 1, .K = 16, .documents = true, .query_offset = 45});
  compare<S, rounds>({.B = 1, .T = 129, .S = 129, .H = 2, .G = 1, .K = 24, .tables = true, .aligned = true});
  compare<S, rounds>({.B = 1, .T = 64, .S = 127, .H = 2, .G = 2, .K = 72, .tables = true, .documents = true, .query_offset = 63, .aligned = true});
  compare<S, rounds>({.B = 1, .T = 65, .S = 33, .H = 1, .G = 1, .K = 136, .query_offset = -10, .aligned = true});
  for (const int64_t K : {64, 128, 256}) compare<S, rounds>({.B = 1, .T = 201, .S = 201, .H = 2, .G = 1, .K = K, .tables = true, .documents = true, .aligned = true});
  // Keys that no query sees, and few queries, as when text is generated.
  compare<S, rounds>({.B = 2, .T = 70, .S = 300, .H = 2, .G = 1, .K = 16});
  for (int64_t K : {2, 10, 16, 50, 64, 100, 256}) compare<S, rounds>({.B = 2, .T = 1, .S = 200, .H = 6, .G = 2, .K = K, .query_offset = 150});
  compare<S, rounds>({.B = 1, .T = 4, .S = 300, .H = 2, .G = 2, .K = 24, .documents = true, .query_offset = 180});
  compare<S, rounds>({.B = 3, .T = 3, .S = 71, .H = 2, .G = 1, .K = 16, .permuted = true, .query_offset = 30});
  compare<S, rounds>({.B = 1, .T = 2, .S = 90, .H = 1, .G = 1, .K = 16, .query_offset = -1});
  // Without positions: on GPUs by cuDNN, which takes bf16 alone.
  if (!EMULATED || std::is_same_v<S, bf16>)
    for (const int64_t K : {8, 16, 64, 128}) compare<S, rounds>({.B = 2, .T = 70, .S = 70, .H = 4, .G = 2, .K = K, .ordered = true, .aligned = true});
  if (!EMULATED) compare<S, rounds>({.B = 1, .T = 2, .S = 90, .H = 1, .G = 1, .K = 16, .tables = true, .documents = true, .ordered = true});
  unseen_keys_do_not_matter<S, rounds>();
  nan_is_seen<S, rounds>();
}

/// Operands each stored in another way, as between a layer of bf16 and one of f32.
void mixed_storage() {
  const Case c = {.B = 1, .T = 80, .S = 90, .H = 2, .G = 1, .K = 16, .tables = true, .query_offset = 10};
  Problem<bf16> narrow(c);
  Problem<float, true> wide(c);
  wide.q.fill([&](int64_t i) { return double(narrow.q[i]); }), wide.v.fill([&](int64_t i) { return double(narrow.v[i]); });
  narrow.k.fill([&](int64_t i) { return double(wide.k[i] = float(narrow.k[i])); });
  wide.forward(2);
  CallBuilder call;
  call.add(wide.q).add(narrow.k).add(wide.v);
  wide.add_tokens(call);
  call.absent().absent().add(narrow.o).add(narrow.lse).scratch(wide.scratch(false, 2)).real(wide.scale).integer(1);
  RUN(call, attention, 2);
  EXPECT(narrow.lse == wide.lse);
  for (int64_t i = 0; i < wide.o.size(); i++) EXPECT(narrow.o[i] == bf16(wide.o[i]));
}

template <class S, bool rounds>
std::string refusal(Problem<S, rounds> problem) {
  CallBuilder call;
  call.add(problem.q).add(problem.k).add(problem.v);
  problem.add_tokens(call);
  call.absent().absent().add(problem.o).add(problem.lse).scratch(1 << 20).real(1).integer(rounds);
  return REFUSAL(call, attention);
}

int main() {
  all<float>();
  all<double>();
  all<bf16>();
  all<float, true>();
  mixed_storage();
  EXPECT(refusal(Problem<float>({.B = 1, .T = 4, .S = 4, .H = 3, .G = 2, .K = 8})) == "there are 3 query heads for 2 key heads; expected: a multiple");
  EXPECT(refusal(Problem<bf16, false>({.B = 1, .T = 4, .S = 4, .H = 1, .G = 1, .K = 8})) ==
         "operand 0 is stored as bf16 and the attribute bf16 is 0; expected: 1, or f32 operands");
  EXPECT(refusal(Problem<double, true>({.B = 1, .T = 4, .S = 4, .H = 1, .G = 1, .K = 8})) == "bf16 is 1 and the operands are f64; expected: f32 or bf16");
  // Without positions, a GPU has cuDNN alone.
  const auto says = [](const std::string& refusal, const char* part) { return refusal.find(part) != std::string::npos; };
  const Case ordered = {.B = 1, .T = 4, .S = 4, .H = 1, .G = 1, .K = 8, .ordered = true, .aligned = true};
  EXPECT(says(refusal(Problem<float>(ordered)), "operand 0 is f32 and there are no positions; expected: bf16 for cuDNN") == EMULATED);
  Case other = ordered;
  other.S = 5;
  EXPECT(says(refusal(Problem<bf16>(other)), "no positions for 4 queries and 5 keys; expected: as many of each for cuDNN") == EMULATED);
  other = ordered, other.documents = true;
  EXPECT(says(refusal(Problem<bf16>(other)), "expected: none of them for cuDNN") == EMULATED);
  other = ordered, other.K = 12;
  EXPECT(says(refusal(Problem<bf16>(other)), "heads of 12; expected: a multiple of 8") == EMULATED);
  EXPECT(refusal(Problem<bf16>(ordered)).empty());
  return finish("attention");
}
