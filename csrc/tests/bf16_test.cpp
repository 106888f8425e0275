// Kernels on operands stored as bf16, any of those that may be: within one rounding of the same kernel in f64, on one or more threads. What is
// stored as bf16 must not change a neighbour, nor lie in the place of an f32; full-bf16 AdamW and sums over repeated ids round once.
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

constexpr bool MAY_BE_BF16 = true;

double to_bf16(double x) { return bf16(float(x)); }

/// A call given by its values, to be run with each operand in any of its storages.
struct Case {
  struct Operand {
    std::vector<int64_t> dims, strides;
    std::vector<double> values;  // each a bf16; of an output, what it holds before
    bool bf16, output;
  };
  const char* kernel;
  std::vector<Operand> operands;
  CallBuilder rest;  // attributes and flags
  int64_t scratch = 0;
  Array<int32_t> integers{{0}};  // the first operand, where there is one
  unsigned seed = 1;

  explicit Case(const char* name) : kernel(name) {}
  Case& operand(bool bf16, bool output, std::vector<int64_t> dims, std::vector<int64_t> strides, const std::function<double(double)>& value) {
    std::mt19937 engine(seed++);
    std::normal_distribution<double> normal;
    Operand x{dims, strides, {}, bf16, output};
    for (int64_t i = Array<float>(dims).size(); i > 0; i--) x.values.push_back(to_bf16(value(normal(engine))));
    operands.push_back(x);
    return *this;
  }
  static double as_drawn(double x) { return x; }
  Case& input(std::vector<int64_t> dims, bool bf16 = MAY_BE_BF16, std::vector<int64_t> strides = {}, const std::function<double(double)>& value = as_drawn) { return operand(bf16, false, dims, strides, value); }
  Case& output(std::vector<int64_t> dims, bool bf16 = MAY_BE_BF16, std::vector<int64_t> strides = {}) { return operand(bf16, true, dims, strides, as_drawn); }
  Case& ids(std::vector<int32_t> values) {
    integers = Array<int32_t>({int64_t(values.size())});
    std::copy(values.begin(), values.end(), integers.data());
    return *this;
  }
  Case& integer(int64_t value) { return rest.integer(value), *this; }
  Case& real(double value) { return rest.real(value), *this; }

  /// What the outputs hold after a call in f64, or in f32 with the operands of `mask` as bf16.
  std::vector<std::vector<double>> run(bool f64, uint64_t mask, int threads) const {
    std::vector<Array<double>> doubles;
    std::vector<Array<float>> floats;
    std::vector<Array<bf16>> halves;
    CallBuilder call = rest;
    if (integers.dims[0]) call.add(integers);
    std::vector<std::function<void()>> after;
    std::vector<std::vector<double>> results;
    const auto add = [&](const Operand& x, auto& arrays) {
      using T = std::remove_reference_t<decltype(arrays[0][0])>;
      arrays.emplace_back(x.dims, x.strides).fill([&](int64_t i) { return x.values[size_t(i)]; });
      call.add(arrays.back());
      if (x.output) after.push_back([&results, &arrays, i = arrays.size() - 1] {
        const Array<T>& made = arrays[i];
        results.emplace_back();
        for (int64_t k = 0; k < made.size(); k++) results.back().push_back(double(made[k]));
        EXPECT(made.guarded());
      });
    };
    for (size_t i = 0; i < operands.size(); i++) {
      if (f64) add(operands[i], doubles);
      else if (operands[i].bf16 && mask >> i & 1) add(operands[i], halves);
      else add(operands[i], floats);
    }
    if (scratch) call.scratch(scratch);
    call.run(test::kernel(kernel), threads);
    for (auto& collect : after) collect();
    return results;
  }
  /// f32 arithmetic may be off by `slack` of a result's size, or of 1.
  void check(double slack = 1e-5) const {
    const auto expected = run(true, 0, 1);
    std::mt19937_64 engine(7);
    for (int round = 0; round < 40 + int(operands.size()); round++) {
      const uint64_t mask = round < int(operands.size()) ? uint64_t{1} << round : round % 2 ? ~uint64_t{0} : engine();
      const auto made = run(false, mask, 1), again = run(false, mask, 3);
      size_t output = 0;
      for (size_t i = 0; i < operands.size(); i++) {
        if (!operands[i].output) continue;
        const bool is_bf16 = operands[i].bf16 && mask >> i & 1;
        const int before = failures;
        for (size_t k = 0; k < made[output].size(); k++) {
          const double e = expected[output][k], half = is_bf16 && std::isfinite(e) && e != 0 ? std::ldexp(1, std::ilogb(e) - 8) : 0;
          EXPECT_NEAR(made[output][k], e, half + slack * (1 + std::fabs(e)));
          EXPECT(made[output][k] == again[output][k] || std::isnan(e));
        }
        if (failures > before) std::printf("  %s, output %zu, operands of mask %llx as bf16\n", kernel, output, static_cast<unsigned long long>(mask));
        output++;
      }
    }
  }
};

int64_t word(int operation, int to, int a, int b = 0) { return int64_t(operation) | int64_t(to) << 16 | int64_t(a) << 28 | int64_t(b) << 40; }
constexpr int ADD = 0, MUL = 2, SILU = 14;

/// y0 = silu(x0) x1 + x2, y1 = x1 x2 + 0.5, x1 a row or by columns.
void maps(int64_t N, int64_t F) {
  for (const auto& strides : {std::vector<int64_t>{F, 1}, {0, 1}, {1, N}, {2 * F, 1}, {0, 0}}) {
    Case call("map");
    call.input({N, F}).input({N, F}, MAY_BE_BF16, strides).input({N, F}, MAY_BE_BF16, {F + 3, 1});
    call.output({N, F}).output({N, F}, MAY_BE_BF16, {1, N + 1});
    const std::vector<int64_t> code = {word(SILU, 4, 0), word(MUL, 4, 4, 1), word(ADD, 4, 4, 2), word(MUL, 5, 1, 2), word(ADD, 6, 5, 3)};
    call.integer(3).integer(7).integer(int64_t(code.size()) + 2);
    for (const int64_t w : code) call.integer(w);
    call.integer(4).integer(6).integer(1).real(0.5);
    if (strides[0] == 0) {  // one value for all elements that share a place
      auto& values = call.operands[1].values;
      for (size_t i = 0; i < values.size(); i++) values[i] = strides[1] ? values[i % size_t(F)] : values[0];
    }
    call.check();
  }
}

void norms(int64_t N, int64_t D) {
  Case("rmsnorm").input({N, D}, MAY_BE_BF16, {D + 3, 1}).input({D}).output({N, D}).output({N}, false).real(1e-5).check();
  // The sum is normed as it is stored: eighths, whose sums are bf16, leave nothing to round there.
  const auto eighth = [](double x) { return std::round(std::fmin(std::fmax(x, -3), 3) * 8) / 8; };
  Case("add_rmsnorm").input({N, D}, MAY_BE_BF16, {}, eighth).input({N, D}, MAY_BE_BF16, {D + 1, 1}, eighth).input({D}).output({N, D}).output({N, D}).output({N}, false).real(1e-5).check();
  for (const int64_t accumulate : {0, 1}) {
    Case backward("rmsnorm_backward");
    backward.input({N, D}).input({N}, false).input({D}).input({N, D}).input({N, D}).output({N, D}).output({D}).integer(accumulate);
    backward.scratch = std::min<int64_t>(N, 64) * D * 8;
    backward.check(2e-5);
  }
}

void copies() {
  for (const int64_t accumulate : {0, 1}) {
    Case("accumulate").input({700, 3}).output({700, 3}).integer(accumulate).check();
    Case("accumulate").input({40, 50}, MAY_BE_BF16, {1, 40}).output({40, 50}).integer(accumulate).check();
    Case("accumulate").input({40, 50}, MAY_BE_BF16, {0, 0}, [](double) { return 1.5; }).output({40, 50}, MAY_BE_BF16, {150, 3}).integer(accumulate).check();
  }
  Array<bf16> all({256, 256}), turned({256, 256}), same({256, 256});
  for (int i = 0; i < 1 << 16; i++) all[i].bits = uint16_t(i);
  CallBuilder call, dense;
  call.add(Array<bf16>(all)).add(turned);
  call.operands[0] = all.tensor(), call.operands[0].strides[0] = 1, call.operands[0].strides[1] = 256;
  dense.add(all).add(same);
  RUN(call, copy, 2);
  RUN(dense, copy, 2);
  for (int i = 0; i < 1 << 16; i++) EXPECT(turned[i].bits == all[i % 256 * 256 + i / 256].bits && same[i].bits == uint16_t(i));
}

void embeddings() {
  std::vector<int32_t> ids;
  for (int i = 0; i < 300; i++) ids.push_back(i * i % 41);
  Case("embedding").ids(ids).input({41, 37}).output({300, 37}, MAY_BE_BF16, {40, 1}).integer(0).integer(41).check();
  for (const int64_t accumulate : {0, 1}) Case("embedding_backward").ids(ids).input({300, 37}, MAY_BE_BF16, {39, 1}).output({41, 37}).integer(accumulate).integer(0).check();
  // 7200 tokens of one id, among others and unknown ones: a sum in bf16 would stop at 256.
  ids.assign(8000, 5);
  for (size_t i = 0; i < ids.size(); i += 10) ids[i] = int32_t(i);
  Array<int32_t> tokens({8000});
  std::copy(ids.begin(), ids.end(), tokens.data());
  Array<bf16> dy({8000, 3}), dtable({EMULATED ? 70 : 7000, 3});
  dy.fill([](int64_t) { return 1; });
  CallBuilder call;
  call.add(tokens).add(dy).add(dtable).integer(0).integer(0);
  RUN(call, embedding_backward, 2);
  EXPECT(dtable[5 * 3] == to_bf16(7200) && dtable[20 * 3 + 2] == 1 && dtable[21 * 3] == 0 && dtable.guarded());
  Array<int32_t> unknown({1});
  Array<bf16> row({1, 3});
  unknown[0] = -1;
  CallBuilder missing;
  missing.add(unknown).add(dtable).add(row).integer(0).integer(7000);
  RUN(missing, embedding, 1);
  EXPECT(std::isnan(row[0]) && std::isnan(row[2]));
}

void ropes() {
  for (const int64_t inverse : {0, 1}) Case("rope").input({9, 3, 10}).input({9, 10}, false).output({9, 3, 10}, MAY_BE_BF16, {40, 12, 1}).integer(inverse).check();
}

/// A step of AdamW, all in bf16: a parameter moves by the nearest bf16, and not at all if the update is small.
void adamw() {
  const auto positive = [](double x) { return std::fabs(x); };
  Case call("adamw");
  for (int group = 0; group < 4; group++)
    for (const auto& dims : {std::vector<int64_t>{5, 7}, {40}}) call.input(dims, MAY_BE_BF16, {}, group == 2 ? positive : Case::as_drawn);
  call.input({}, false, {}, [](double) { return 0.0078125; }).input({}, false, {}, [](double) { return 3; }).input({}, false, {}, [](double) { return 0.5; });
  for (int group = 0; group < 3; group++)
    for (const auto& dims : {std::vector<int64_t>{5, 7}, {40}}) call.output(dims);
  call.integer(2).real(0.9).real(0.95).real(1e-8).real(0.1).check();
  call.operands[10].values[0] = NAN;  // the scale of a diverged norm
  call.check(0);

  Array<bf16> p({2}), m({2}), v({2}), g({2});
  Array<float> lr({}), step({}), scale({});
  p[0] = bf16(1), p[1] = bf16(0.0078125), lr[0] = 0x1p-10f, step[0] = 1, scale[0] = 1;
  m.fill([](int64_t) { return 0; }), v.fill([](int64_t) { return 0; }), g.fill([](int64_t) { return -1; });
  CallBuilder small;
  small.add(p).add(m).add(v).add(g).add(lr).add(step).add(scale).add(p).add(m).add(v).integer(1).real(0.9).real(0.95).real(1e-8).real(0);
  RUN(small, adamw, 1);
  EXPECT(p[0] == 1 && p[1] == to_bf16(0.0078125 + 0x1p-10) && m[0] == to_bf16(-0.1) && v[0] == to_bf16(0.05));
}

void sums() {
  Case call("sum_squares");
  call.input({10000, 3}).input({4097}).input({1}).output({}, false);
  call.scratch = 8 * 11;
  call.check(1e-6);
}

/// The f32 numbers rounded.
void randoms() {
  Array<int32_t> seed({2});
  seed[0] = 7, seed[1] = 8;
  for (const int64_t kind : {0, 1, 2}) {
    Array<float> wide({3, 333});
    Array<bf16> narrow({3, 333});
    CallBuilder one, two;
    one.add(seed).add(wide), two.add(seed).add(narrow);
    for (CallBuilder* call : {&one, &two}) {
      call->integer(kind).integer(99).real(0.1).real(2).real(-1).real(3);
      for (int64_t word : {2, 3, 333, 2, 0, 0, 2, 3, 333}) call->integer(word);
    }
    RUN(one, random, 2);
    RUN(two, random, 2);
    for (int64_t i = 0; i < wide.size(); i++) EXPECT(narrow[i].bits == bf16(wide[i]).bits);
    EXPECT(narrow.guarded());
  }
}

void in_place() {
  Array<bf16> x({5, 40}), apart({5, 40});
  Array<float> w({40}), rstd({5});
  x.random(1), w.random(2);
  CallBuilder before, after;
  before.add(x).add(w).add(apart).add(rstd).real(1e-5);
  after.add(x).add(w).add(x).add(rstd).real(1e-5);
  RUN(before, rmsnorm, 2);
  RUN(after, rmsnorm, 2);
  EXPECT(x == apart);
}

void refusals() {
  Array<float> x({4, 8}), w({8}), rstd({4}), table({4, 8}), scalar({});
  Array<bf16> half({4, 8}), few({4});
  Array<double> wide({4, 8});
  const auto shared = [&](const Array<float>& with) {  // bf16 in the place of an f32
    Tensor t = with.tensor();
    t.dtype = DType::bf16;
    return t;
  };
  const auto expect = [](const std::string& refusal, const char* part) {
    if (refusal.find(part) == std::string::npos) std::printf("\"%s\" is not in \"%s\"\n", part, refusal.c_str()), failures++;
  };
  const char* const place = ", which is f32; expected: the same dtype, or a place of its own";
  CallBuilder norm, statistics, turn, angles, map, copy, sum, squares, update;
  norm.add(x).add(w).add(x).add(rstd).real(1e-5);
  norm.operands[2] = shared(x);
  expect(REFUSAL(norm, rmsnorm), "operand 2 (y) is bf16 in the place of x");
  expect(REFUSAL(norm, rmsnorm), place);
  statistics.add(half).add(w).add(half).add(few).real(1e-5);
  expect(REFUSAL(statistics, rmsnorm), "operand 3 (rstd) is bf16; expected: f32");
  turn.add(x).add(table).add(x).integer(0);
  for (Tensor& t : turn.operands) t.rank = 3, t.dims[2] = 8, t.dims[1] = 1, t.strides[2] = 1, t.strides[1] = 8;
  turn.operands[1] = table.tensor(), turn.operands[2].dtype = DType::bf16;
  expect(REFUSAL(turn, rope), "operand 2 (y) is bf16 in the place of x");
  turn.operands[2].dtype = DType::f32, turn.operands[1].dtype = DType::bf16;
  expect(REFUSAL(turn, rope), "operand 1 (table) is bf16; expected: f32");
  map.add(x).add(x).integer(1).integer(1).integer(1).integer(0).integer(0);
  map.operands[1] = shared(x);
  expect(REFUSAL(map, map), "(y[0]) is bf16 in the place of x[0]");
  copy.add(x).add(half);
  expect(REFUSAL(copy, copy), "x is f32 and y bf16; expected: the same dtype");
  sum.add(wide).add(half).integer(0);
  expect(REFUSAL(sum, accumulate), "x is f64 and y bf16; expected: the same dtype, or f32 and bf16");
  squares.add(half).add(few).scratch(64);
  squares.operands[1].rank = 0;
  expect(REFUSAL(squares, sum_squares), "operand 1 (y) is bf16; expected: f32 or f64");
  update.add(x).add(x).add(x).add(half).add(scalar).add(scalar).add(scalar).add(x).add(x).add(x).integer(1).real(0.9).real(0.95).real(1e-8).real(0);
  expect(REFUSAL(update, adamw), "");
  update.operands[8] = shared(x);
  expect(REFUSAL(update, adamw), "(new m[0]) is bf16 in the place of m[0]");
}

}  // namespace

int main() {
  maps(3, 1300);
  maps(40, 9);
  maps(1, 1);
  norms(70, 33);
  norms(3, 256);
  copies();
  embeddings();
  ropes();
  adamw();
  sums();
  randoms();
  in_place();
  refusals();
  return finish("bf16");
}
