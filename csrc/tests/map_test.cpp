// map: every operation against the C library, SwiGLU both ways, broadcasts, strides, conversions, in place, and refusals.
#include "test.h"

using namespace titan;
using namespace titan::test;

enum Operation {
#define KERNEL(name, operands, attributes, dtypes)
#define MAP(name, arity) name##_,
#include "../kernels.def"
#undef MAP
};
const char* NAMES[] = {
#define MAP(name, arity) #name,
#include "../kernels.def"
#undef MAP
};
const int ARITY[] = {
#define MAP(name, arity) arity,
#include "../kernels.def"
#undef MAP
#undef KERNEL
};

double reference(int operation, double a, double b, double c) {
  switch (operation) {
    case add_: return a + b;
    case sub_: return a - b;
    case mul_: return a * b;
    case div_: return a / b;
    case maximum_: return std::isnan(a) || std::isnan(b) ? NAN : std::fmax(a, b);
    case minimum_: return std::isnan(a) || std::isnan(b) ? NAN : std::fmin(a, b);
    case neg_: return -a;
    case abs_: return std::fabs(a);
    case exp_: return std::exp(a);
    case log_: return std::log(a);
    case sqrt_: return std::sqrt(a);
    case rsqrt_: return 1 / std::sqrt(a);
    case tanh_: return std::tanh(a);
    case sigmoid_: return 1 / (1 + std::exp(-a));
    case silu_: return a / (1 + std::exp(-a));
    case relu_: return a > 0 || std::isnan(a) ? a : 0;
    case square_: return a * a;
    case reciprocal_: return 1 / a;
    case less_: return a < b;
    case less_equal_: return a <= b;
    case equal_: return a == b;
    case select_: return a != 0 ? b : c;
    case floor_power_of_two_: return a == 0 || !std::isfinite(a) ? a : std::copysign(std::ldexp(1, std::ilogb(a)), a);
    case round_bf16_: return bf16(float(a));
    case round_f8e4m3_: return f8e4m3(float(a));
    case round_f8e5m2_: return f8e5m2(float(a));
  }
  std::printf("%s has no reference\n  fix: add a case to reference() in map_test.cpp\n", NAMES[operation]);
  std::exit(1);
}

int64_t word(int operation, int to, int a, int b = 0, int c = 0) { return int64_t(operation) | int64_t(to) << 16 | int64_t(a) << 28 | int64_t(b) << 40 | int64_t(c) << 52; }

void attributes(CallBuilder& call, int inputs, int registers, const std::vector<int64_t>& code, const std::vector<double>& constants = {}) {
  call.integer(inputs).integer(registers).integer(int64_t(code.size()));
  for (int64_t w : code) call.integer(w);
  call.integer(int64_t(constants.size()));
  for (double c : constants) call.real(c);
}

template <class real>
void every_operation() {
  const double special[] = {0, -0.0, 1, -1, 0.25, 3, INFINITY, -INFINITY, NAN, 1e-3, 87, -87, 20, -20};
  const double eps = sizeof(real) == 4 ? 4e-7 : 2e-15;
  for (int operation = 0; operation < int(std::size(NAMES)); operation++) {
    const int arity = ARITY[operation];
    Array<real> a({1237}), b({1237}), c({1237}), y({1237});
    a.random(1, 3), b.random(2), c.random(3);
    for (int i = 0; i < 14; i++)
      for (int j = 0; j < 14; j++) a[i * 14 + j] = real(special[i]), b[i * 14 + j] = real(special[j]);
    CallBuilder call;
    call.add(a);
    if (arity > 1) call.add(b);
    if (arity > 2) call.add(c);
    call.add(y);
    attributes(call, arity, arity + 1, {word(operation, arity, 0, 1, 2), arity});
    RUN(call, map, 2);
    for (int i = 0; i < 1237; i++) {
      const double e = reference(operation, double(a[i]), double(b[i]), double(c[i]));
      if (std::fabs(e) < 1e-37 && e != 0) continue;  // denormals of f32
      const int before = failures;
      EXPECT_NEAR(double(y[i]), double(real(e)), eps * std::fabs(e) + (operation == log_ ? eps : 0));
      if (failures > before) std::printf("  %s(%g, %g, %g)\n", NAMES[operation], double(a[i]), double(b[i]), double(c[i]));
    }
    EXPECT(y.guarded());
  }
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// gate and up are the halves of one [N, 2F] product; backward writes their gradients over them and the product silu(gate) up over its own gradient.
template <class real>
void swiglu(int64_t N, int64_t F) {
  Array<real> product({N, 2 * F}), forward({N, F}), d({N, F});
  product.random(4), d.random(5);
  auto half = [&](Array<real>& whole, int which) {
    Tensor t = whole.tensor();
    t.dims[1] = F, t.data = whole.data() + which * F;
    return t;
  };
  CallBuilder call;
  call.operands = {half(product, 0), half(product, 1), forward.tensor()};
  attributes(call, 2, 4, {word(silu_, 2, 0), word(mul_, 3, 2, 1), 3});
  RUN(call, map, 2);

  const Array<real> x = product, g = d;
  CallBuilder backward;
  backward.operands = {half(product, 0), half(product, 1), d.tensor(), half(product, 0), half(product, 1), d.tensor()};
  // registers: 0 gate, 1 up, 2 d, 3 the constant 1, 4 s, 5 silu, 6.. dgate = d up (s + silu (1 - s)), dup = d silu, product = silu up
  attributes(backward, 3, 10, {word(sigmoid_, 4, 0), word(mul_, 5, 4, 0), word(sub_, 6, 3, 4), word(mul_, 6, 6, 5), word(add_, 6, 6, 4), word(mul_, 6, 6, 1),
                               word(mul_, 7, 6, 2), word(mul_, 8, 2, 5), word(mul_, 9, 5, 1), 7, 8, 9}, {1});
  RUN(backward, map, 1);
  const double eps = sizeof(real) == 4 ? 2e-6 : 1e-14;
  for (int64_t n = 0; n < N; n++)
    for (int64_t f = 0; f < F; f++) {
      const double a = double(x[n * 2 * F + f]), b = double(x[n * 2 * F + F + f]), e = double(g[n * F + f]), s = sigmoid(a);
      EXPECT_NEAR(double(forward[n * F + f]), a * s * b, eps * 10);
      EXPECT_NEAR(double(product[n * 2 * F + f]), e * b * (s + a * s * (1 - s)), eps * 10);
      EXPECT_NEAR(double(product[n * 2 * F + F + f]), e * a * s, eps * 10);
      EXPECT_NEAR(double(d[n * F + f]), a * s * b, eps * 10);
    }
  EXPECT(product.guarded() && forward.guarded() && d.guarded());
}

/// y[i,j,k] = x[i,j,k] + row[k] + column[i,j] + s + i32[i,k], and the transposed x, for dims short and long.
template <class real>
void broadcasts(int64_t I, int64_t J, int64_t K) {
  Array<real> x({I, J, K}), row({I, J, K}, {0, 0, 1}), column({I, J, K}, {J, 1, 0}), scalar({I, J, K}, {0, 0, 0}), turned({I, J, K}, {1, I, I * J}), y({I, J, K}, {J * K + 5, K, 1});
  Array<int32_t> ids({I, J, K}, {K, 0, 1});
  x.random(1), turned.random(3);
  row.fill([](int64_t i) { return double(i % 7); }), column.fill([](int64_t i) { return double(i % 5); }), scalar.fill([](int64_t) { return 0.5; }), ids.fill([](int64_t i) { return double(i % 11); });
  std::vector<Array<real>> results;
  for (int threads : {1, 2, 3}) {
    Array<real> out = y;
    CallBuilder call;
    call.add(x).add(row).add(column).add(scalar).add(turned).add(ids).add(out);
    attributes(call, 6, 8, {word(add_, 7, 0, 1), word(add_, 7, 7, 2), word(add_, 7, 7, 3), word(add_, 7, 7, 4), word(add_, 7, 7, 5), word(add_, 7, 7, 6), 7}, {100});
    RUN(call, map, threads);
    results.push_back(out);
  }
  EXPECT(results[0] == results[1] && results[0] == results[2]);
  for (int64_t i = 0; i < x.size(); i++)
    EXPECT_NEAR(double(results[0][i]), double(x[i]) + double(row[i]) + double(column[i]) + 0.5 + double(turned[i]) + ids[i] + 100, sizeof(real) == 4 ? 5e-5 : 1e-12);
  EXPECT(results[0].guarded());
}

/// Exchanging two arrays in place, and an output written early over an input that is read later.
template <class real>
void in_place() {
  Array<real> a({3000}), b({3000});
  a.random(1), b.random(2);
  const Array<real> a0 = a, b0 = b;
  CallBuilder call;
  call.add(a).add(b).add(a).add(b);
  attributes(call, 2, 4, {word(neg_, 2, 1), word(add_, 3, 0, 1), 2, 0});
  RUN(call, map, 2);
  for (int i = 0; i < 3000; i++) EXPECT(a[i] == -b0[i] && b[i] == a0[i]);

  a = a0, b = b0;
  CallBuilder early;
  early.add(a).add(b).add(a).add(b);
  attributes(early, 2, 4, {word(mul_, 2, 0, 1), word(sub_, 3, 0, 1), 2, 3});
  RUN(early, map, 2);
  for (int i = 0; i < 3000; i++) EXPECT(a[i] == a0[i] * b0[i] && b[i] == a0[i] - b0[i]);
}

/// y = 2 x + 1 for short and long rows that begin at every place within 16 bytes, whatever the types: what lies before and behind stays as it was.
template <class X, class Y>
void alignments() {
  for (const int64_t n : {1, 9, 300})
    for (int64_t at = 0; at < int64_t(16 / std::min(sizeof(X), sizeof(Y))); at++) {
      Array<X> x({n + 16});
      Array<Y> y({n + 16});
      x.fill([](int64_t i) { return double(i % 7 - 3); });
      const int64_t from = at, to = (3 * at + 1) % 16;
      CallBuilder call;
      call.operands = {x.tensor(), y.tensor()};
      call.operands[0].data = x.data() + from, call.operands[1].data = y.data() + to;
      call.operands[0].dims[0] = call.operands[1].dims[0] = n;
      attributes(call, 1, 5, {word(mul_, 3, 0, 1), word(add_, 4, 3, 2), 4}, {2, 1});
      RUN(call, map, 1);
      for (int64_t i = 0; i < n + 16; i++) EXPECT(double(y[i]) == (i < to || i >= to + n ? double(Y(77)) : 2 * double((i - to + from) % 7 - 3) + 1));
      EXPECT(y.guarded());
    }
}

/// 48 steps over six inputs, each of the last registers: x = 1.5 x - y for one after another.
template <class real>
void long_program() {
  std::vector<Array<real>> x(6, Array<real>({513}));
  Array<real> y({513});
  CallBuilder call;
  for (int k = 0; k < 6; k++) call.add(x[size_t(k)].random(unsigned(k)));
  call.add(y);
  std::vector<int64_t> code;
  for (int step = 0; step < 24; step++) {
    const int a = step < 6 ? step : 7 + (step - 6) % 6, b = step < 5 ? step + 1 : 7 + (step - 5) % 6;
    code.push_back(word(mul_, 13, a, 6)), code.push_back(word(sub_, 7 + step % 6, 13, b));
  }
  code.push_back(12);
  attributes(call, 6, 14, code, {1.5});
  RUN(call, map, 2);
  for (int i = 0; i < 513; i++) {
    double r[14];
    for (int k = 0; k < 6; k++) r[k] = double(x[size_t(k)][i]);
    r[6] = 1.5;
    for (size_t k = 0; k + 1 < code.size(); k += 2) {
      const int64_t mul = code[k], sub = code[k + 1];
      r[sub >> 16 & 0xfff] = r[mul >> 28 & 0xfff] * 1.5 - r[sub >> 40 & 0xfff];
    }
    EXPECT_NEAR(double(y[i]), r[12], (sizeof(real) == 4 ? 1e-4 : 1e-12) * (1 + std::fabs(r[12])));
  }
}

void refusals() {
  Array<float> x({4}), y({4}), z({5});
  auto refusal = [&](const Array<float>& out, int registers, std::vector<int64_t> code) {
    CallBuilder call;
    call.add(x).add(out);
    attributes(call, 1, registers, code);
    return REFUSAL(call, map);
  };
  EXPECT(refusal(y, 2, {word(neg_, 1, 0), 1}) == "");
  EXPECT(refusal(z, 2, {word(neg_, 1, 0), 1}).find("dims [4]; expected: [5]") != std::string::npos);
  EXPECT(refusal(y, 3, {word(neg_, 1, 2), 1}).find("reads register 2") != std::string::npos);
  EXPECT(refusal(y, 2, {word(neg_, 0, 0), 0}).find("writes register 0") != std::string::npos);
  EXPECT(refusal(y, 2, {word(99, 1, 0), 1}).find("operation 99") != std::string::npos);
  EXPECT(refusal(y, 2, {word(neg_, 1, 0), 9}).find("output 0 is register 9") != std::string::npos);
  EXPECT(refusal(y, 500, {word(neg_, 1, 0), 1}).find("500 registers") != std::string::npos);
  EXPECT(refusal(y, 2, {}).find("do not add up") != std::string::npos);
}

template <class real>
void all() {
  every_operation<real>();
  swiglu<real>(5, 768);
  swiglu<real>(7, 33);
  swiglu<real>(1, 1);
  broadcasts<real>(3, 4, 5);
  broadcasts<real>(2, 3, 1500);
  broadcasts<real>(1, 700, 1);
  broadcasts<real>(40, 9, 70);
  in_place<real>();
  long_program<real>();
}

int main() {
  all<float>();
  all<double>();
  alignments<float, float>(), alignments<double, double>();
  alignments<bf16, float>(), alignments<float, bf16>();
  alignments<f8e4m3, bf16>(), alignments<float, f8e5m2>();
  refusals();
  return finish("map");
}
