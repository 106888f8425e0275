// Softmax over rows: y[n,d] = exp(x[n,d] - max_d x[n]) / sum_d exp(x[n,d] - max_d x[n]). x, y [N,D]; y may be x.
// Memory-bound for rows beyond L2, else bound by exp. A row is read for its maximum, written as exponentials, and scaled in cache.
#include <limits>

#include "../check.h"
#include "../kernels.h"
#include "../parallel.h"
#include "../simd.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

template <class real>
void softmax(const Call& call) {
  const Tensor &x = call[0], &y = call[1];
  const int64_t D = x.dims[1];
  for_each(x.dims[0], call.threads, [&](int64_t n) {
    const real* from = x.as<real>() + n * x.strides[0];
    real *to = y.as<real>() + n * y.strides[0], peak = from[0];
    for (int64_t d = 1; d < D; d++) peak = peak < from[d] ? from[d] : peak;
    vec<real> sums = {};
    for_lanes<real>(D, [&](int64_t d, int64_t lanes) {
      const vec<real> e = exp_lanes<real>(load(from + d, lanes) - peak);
      store(to + d, e, lanes);
      sums += load(to + d, lanes);  // lanes past the end read as 0
    });
    const real scale = 1 / sum_lanes<real>(sums);
    for_lanes<real>(D, [&](int64_t d, int64_t lanes) { store(to + d, load(to + d, lanes) * scale, lanes); });
  });
}

}  // namespace

void run_softmax(const Call& call) {
  with_real(call[0].dtype, [&](auto zero) { softmax<decltype(zero)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_softmax(const Call& call) {
  Check check(call, {"x", "y"}, 0);
  const DType real = check.real(0);
  const int64_t N = check.dim(0, 0), D = check.dim(0, 1);
  check.operand(0, real, {N, D}).operand(1, real, {N, D});
  return check.rows(0).rows(1).writable(1).error();
}
}  // namespace titan::cpu
#endif
