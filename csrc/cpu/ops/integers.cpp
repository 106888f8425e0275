// What is done with i32 element by element; `map` computes in reals.
//   integer_map   y = operation(x*), one of map's operations that integers have, which wrap around; without operands y = value. Comparisons give 1 or 0
//   integer_cast  y = x without its fraction, i32; the nearest of i32 where x is beyond, 0 where it is NaN
// Operands of one shape, any rank and strides; y may be an operand of its element size. Memory-bound. There are few integers beside reals, so
// nothing is fused: each call is a pass.
#include <algorithm>
#include <limits>

#include "../../signature.h"
#include "../kernels.h"
#include "../parallel.h"
#include "../storage.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

/// Calls f(offsets of all operands) for each element, from all threads.
template <int N, class F>
void for_each_element(const Call& call, F f) {
  const Tensor& y = call[N - 1];
  const int64_t inner = y.rank ? y.dims[y.rank - 1] : 1, rows = inner ? elements(y) / inner : 0;
  for_each_of(rows, inner, call.threads, [&](int64_t row) {
    int64_t at[N] = {}, rest = row;
    for (int d = y.rank - 2; d >= 0; rest /= y.dims[d], d--)
      for (int i = 0; i < N; i++) at[i] += rest % y.dims[d] * call[i].strides[d];
    for (int64_t k = 0; k < inner; k++) {
      f(at);
      for (int i = 0; i < N; i++) at[i] += y.rank ? call[i].strides[y.rank - 1] : 0;
    }
  });
}

template <class F>
void binary(const Call& call, F f) {
  const int32_t *a = call[0].as<int32_t>(), *b = call[1].as<int32_t>();
  int32_t* y = call[2].as<int32_t>();
  for_each_element<3>(call, [&](const int64_t* at) { y[at[2]] = int32_t(f(a[at[0]], b[at[1]])); });
}

int32_t truncated(double x) {
  constexpr double lowest = std::numeric_limits<int32_t>::min(), highest = std::numeric_limits<int32_t>::max();
  return x == x ? int32_t(std::clamp(x, lowest, highest)) : 0;
}

}  // namespace

void run_integer_map(const Call& call) {
  using U = uint32_t;
  if (call.num_operands == 1) {
    int32_t* y = call[0].as<int32_t>();
    const int32_t value = int32_t(call.attributes[1].i);
    return for_each_element<1>(call, [&](const int64_t* at) { y[at[0]] = value; });
  }
  switch (call.attributes[0].i) {
    case MAP_add: return binary(call, [](int32_t a, int32_t b) { return U(a) + U(b); });
    case MAP_sub: return binary(call, [](int32_t a, int32_t b) { return U(a) - U(b); });
    case MAP_mul: return binary(call, [](int32_t a, int32_t b) { return U(a) * U(b); });
    case MAP_maximum: return binary(call, [](int32_t a, int32_t b) { return std::max(a, b); });
    case MAP_minimum: return binary(call, [](int32_t a, int32_t b) { return std::min(a, b); });
    case MAP_less: return binary(call, [](int32_t a, int32_t b) { return a < b; });
    case MAP_less_equal: return binary(call, [](int32_t a, int32_t b) { return a <= b; });
    case MAP_equal: return binary(call, [](int32_t a, int32_t b) { return a == b; });
    case MAP_select: {
      const int32_t *c = call[0].as<int32_t>(), *a = call[1].as<int32_t>(), *b = call[2].as<int32_t>();
      int32_t* y = call[3].as<int32_t>();
      return for_each_element<4>(call, [&](const int64_t* at) { y[at[3]] = c[at[0]] ? a[at[1]] : b[at[2]]; });
    }
  }
}

void run_integer_cast(const Call& call) {
  int32_t* y = call[1].as<int32_t>();
  with_stored(call[0], [&](auto zero) {
    const auto* x = call[0].as<decltype(zero)>();
    for_each_element<2>(call, [&](const int64_t* at) { y[at[1]] = truncated(double(x[at[0]])); });
  });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
namespace {
/// How many operands an operation takes; 0 where integers have no such.
int arity_of(int64_t operation) {
  switch (operation) {
    case MAP_add: case MAP_sub: case MAP_mul: case MAP_maximum: case MAP_minimum: case MAP_less: case MAP_less_equal: case MAP_equal: return 2;
    case MAP_select: return 3;
    default: return 0;
  }
}
std::string check_shapes(Check& check, const Call& call) {
  const Tensor& y = call[call.num_operands - 1];
  for (int i = 0; i + 1 < call.num_operands; i++)
    check.require(call[i].rank == y.rank && std::equal(y.dims, y.dims + y.rank, call[i].dims), "operand " + std::to_string(i) + " has dims " + to_text(call[i].dims, call[i].rank) + "; expected: " + to_text(y.dims, y.rank) + " as y");
  return check.writable(call.num_operands - 1).error();
}
}  // namespace

std::string check_integer_map(const Call& call) {
  std::vector<std::string> names;
  for (int i = 0; i + 1 < call.num_operands; i++) names.push_back("x[" + std::to_string(i) + "]");
  names.push_back("y");
  Check check(call, names, 2);
  if (!check.ok()) return check.error();
  const int64_t operation = call.attributes[0].i, value = call.attributes[1].i;
  const int arity = call.num_operands == 1 ? 0 : arity_of(operation);
  check.require(call.num_operands == arity + 1, "operation " + std::to_string(operation) + " has " + std::to_string(call.num_operands - 1) + " operands; expected: one of integers, with as many as it takes");
  check.require(value == int32_t(value), "value is " + std::to_string(value) + "; expected: one that i32 holds");
  for (int i = 0; i < call.num_operands; i++) check.require(call[i].dtype == DType::i32, names[size_t(i)] + " is " + name_of(call[i].dtype) + "; expected: i32");
  return check_shapes(check, call);
}
std::string check_integer_cast(const Call& call) {
  Check check(call, {"x", "y"}, 0);
  if (!check.ok()) return check.error();
  check.real_or_bf16(0);
  check.require(call[1].dtype == DType::i32, std::string("y is ") + name_of(call[1].dtype) + "; expected: i32");
  check.in_place(0, 1);
  return check_shapes(check, call);
}
}  // namespace titan::cpu
#endif
