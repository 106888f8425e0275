// y = sum over all elements of all x* of x^2: the square of the global gradient norm. Each x may be bf16.
// Memory-bound: every gradient is read once. The elements of each operand are cut into blocks of BLOCK, whatever the number of threads; a
// block's sum goes to its own f64 in scratch, and those are added in order: the same bits for any number of threads.
#include <algorithm>

#include "../kernels.h"
#include "../parallel.h"
#include "../storage.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

constexpr int64_t BLOCK = 4096;

int64_t blocks_of(const Tensor& x) { return (elements(x) + BLOCK - 1) / BLOCK; }

template <class T>
double block_sum(const T* x, int64_t n) {
  using real = computed<T>;
  vec<real> sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * LANES<real> <= n; i += 4 * LANES<real>)
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
      const vec<real> v = load(x + i + c * LANES<real>);
      sums[c] += v * v;
    }
  double tail = 0;
  for (; i < n; i++) tail += double(x[i]) * double(x[i]);
  return double(sum_lanes<real>((sums[0] + sums[1]) + (sums[2] + sums[3]))) + tail;
}

template <class real>
void sum_squares(const Call& call) {
  const int operands = call.num_operands - 2;
  double* partials = call[operands + 1].as<double>();
  int64_t total = 0;
  for (int i = 0; i < operands; i++) total += blocks_of(call[i]);
  for_each(call.threads, call.threads, [&](int64_t part) {
    const int64_t end = total * (part + 1) / call.threads;
    int64_t block = total * part / call.threads, first = 0;  // `first`: number of the operand's first block
    for (int i = 0; i < operands && block < end; first += blocks_of(call[i]), i++)
      for (const int64_t last = first + blocks_of(call[i]); block < std::min(end, last); block++) {
        const int64_t begin = (block - first) * BLOCK;
        with_stored(call[i], [&](auto x) { partials[block] = block_sum(call[i].as<decltype(x)>() + begin, std::min(BLOCK, elements(call[i]) - begin)); });
      }
  });
  double sum = 0;
  for (int64_t block = 0; block < total; block++) sum += partials[block];
  *call[operands].as<real>() = real(sum);
}

}  // namespace

void run_sum_squares(const Call& call) {
  with_real(call[call.num_operands - 2].dtype, [&](auto zero) { sum_squares<decltype(zero)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_sum_squares(const Call& call) {
  const int operands = call.num_operands - 2;
  std::vector<std::string> names;
  for (int i = 0; i < operands; i++) names.push_back("x[" + std::to_string(i) + "]");
  names.insert(names.end(), {"y", "scratch"});
  Check check(call, names, 0);
  check.require(operands >= 1, "there is no x; expected: at least one");
  const DType real = operands >= 0 ? check.real(operands) : DType::f32;
  int64_t blocks = 0;
  for (int i = 0; i < operands; i++) {
    check.require(widened(call[i].dtype) == real, names[size_t(i)] + " is " + name_of(call[i].dtype) + "; expected: " + name_of(real)).dense(i);
    blocks += blocks_of(call[i]);
  }
  return check.operand(operands, real, {}).scratch(operands + 1, 8 * blocks).error();
}
}  // namespace titan::cpu
#endif
