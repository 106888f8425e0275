// The K largest elements of each row, largest first: x[N,D] -> values[N,K], ids[N,K] i32. Of equal elements the one with the lower index comes
// first; NaN counts as larger than all, so that it shows.
// Memory-bound for small K: a row is read once, and an element that is not among the K largest so far costs one comparison. Those that are
// move the smaller ones, up to K of them.
#include "../check.h"
#include "../kernels.h"
#include "../parallel.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

template <class real>
void top_k(const Call& call) {
  const Tensor &x = call[0], &values = call[1], &ids = call[2];
  const int64_t D = x.dims[1], K = values.dims[1];
  const auto is_larger = [](real a, real b) { return a > b || (a != a && b == b); };
  for_each(x.dims[0], call.threads, [&](int64_t n) {
    const real* from = x.as<real>() + n * x.strides[0];
    real* best = values.as<real>() + n * values.strides[0];
    int32_t* at = ids.as<int32_t>() + n * ids.strides[0];
    int64_t found = 0;
    for (int64_t d = 0; d < D; d++) {
      const real value = from[d];
      if (found == K && !is_larger(value, best[K - 1])) continue;
      int64_t k = found < K ? found++ : K - 1;
      for (; k > 0 && is_larger(value, best[k - 1]); k--) best[k] = best[k - 1], at[k] = at[k - 1];
      best[k] = value, at[k] = int32_t(d);
    }
  });
}

}  // namespace

void run_top_k(const Call& call) {
  with_real(call[0].dtype, [&](auto zero) { top_k<decltype(zero)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_top_k(const Call& call) {
  Check check(call, {"x", "values", "ids"}, 0);
  const DType real = check.real(0);
  const int64_t N = check.dim(0, 0), D = check.dim(0, 1), K = check.dim(1, 1);
  check.operand(0, real, {N, D}).operand(1, real, {N, K}).operand(2, DType::i32, {N, K}).rows(0).rows(1).rows(2).writable(1).writable(2);
  return check.require(K >= 1 && K <= D, "values has " + std::to_string(K) + " elements a row; expected: 1 to " + std::to_string(D) + ", as many as x has").error();
}
}  // namespace titan::cpu
#endif
