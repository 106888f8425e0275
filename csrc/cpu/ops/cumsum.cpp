// Running sums along one dim: y[i] = x[0] + ... + x[i], or without x[i] (exclusive); with reverse from the end on. x, y of one shape, any rank
// and strides; y may be x. Integers wrap around.
// Memory-bound where the dim is long and dense. Lines along the dim are dealt to the threads; each is summed in its order, reals in f64: the same
// bits for any number of threads.
#include <algorithm>

#include "../check.h"
#include "../kernels.h"
#include "../parallel.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

template <class Element, class Sum>
void cumsum(const Call& call) {
  const Tensor &x = call[0], &y = call[1];
  const int dim = int(call.attributes[0].i);
  const bool exclusive = call.attributes[1].i, reverse = call.attributes[2].i;
  const int64_t n = x.dims[dim], lines = n ? elements(x) / n : 0;
  const int64_t x_step = reverse ? -x.strides[dim] : x.strides[dim], y_step = reverse ? -y.strides[dim] : y.strides[dim];
  for_each_of(lines, n, call.threads, [&](int64_t line) {
    const Element* from = x.as<Element>() + (reverse ? (n - 1) * x.strides[dim] : 0);
    Element* to = y.as<Element>() + (reverse ? (n - 1) * y.strides[dim] : 0);
    int64_t rest = line;
    for (int d = x.rank - 1; d >= 0; d--) {
      if (d == dim) continue;
      from += rest % x.dims[d] * x.strides[d];
      to += rest % x.dims[d] * y.strides[d];
      rest /= x.dims[d];
    }
    Sum sum = 0;
    for (int64_t i = 0; i < n; i++) {
      const Sum next = sum + Sum(from[i * x_step]);
      to[i * y_step] = Element(exclusive ? sum : next);
      sum = next;
    }
  });
}

}  // namespace

void run_cumsum(const Call& call) {
  if (call[0].dtype == DType::i32) cumsum<int32_t, uint32_t>(call);
  else if (call[0].dtype == DType::f64) cumsum<double, double>(call);
  else cumsum<float, double>(call);
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_cumsum(const Call& call) {
  Check check(call, {"x", "y"}, 3);
  if (!check.ok()) return check.error();
  const Tensor &x = call[0], &y = call[1];
  check.require(is_real(x.dtype) || x.dtype == DType::i32, std::string("x is ") + name_of(x.dtype) + "; expected: f32, f64 or i32");
  check.require(y.dtype == x.dtype, std::string("y is ") + name_of(y.dtype) + "; expected: " + name_of(x.dtype) + " as x");
  check.require(x.rank == y.rank && std::equal(x.dims, x.dims + x.rank, y.dims), "y has dims " + to_text(y.dims, y.rank) + "; expected: " + to_text(x.dims, x.rank) + " as x");
  const char* names[] = {"dim", "exclusive", "reverse"};
  for (int i = 0; i < 3; i++) {
    const int64_t value = call.attributes[i].i, most = i ? 1 : x.rank - 1;
    check.require(value >= 0 && value <= most, std::string(names[i]) + " is " + std::to_string(value) + "; expected: 0 to " + std::to_string(most));
  }
  if (check.ok() && x.data == y.data)
    check.require(std::equal(x.strides, x.strides + x.rank, y.strides), "y begins where x does and has other strides; expected: the same, or a place of its own");
  return check.writable(1).error();
}
}  // namespace titan::cpu
#endif
