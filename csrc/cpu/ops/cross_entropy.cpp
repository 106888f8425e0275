// Softmax cross-entropy over rows of logits[N,V] with targets[N] i32; rows whose target is ignore_index do not count.
//   cross_entropy           lse[n] = log sum_v exp(logits[n,v]),  loss = sum over counted n of lse[n] - logits[n, target],  count = their number
//   cross_entropy_part      of a slice of a vocabulary of `whole` that begins at `start`: its lse[n], and logit[n] = logits[n, target - start],
//                           0 where the target is in another slice or ignored
//   cross_entropy_backward  dlogits[n,v] = (exp(logits[n,v] - lse[n]) - [v = target - start]) dloss, 0 in ignored rows; may be the logits themselves
// Memory-bound for rows beyond L2, else bound by exp. A row is read for its maximum and again, from cache, for its sum. Row losses go to
// scratch and are summed in row order in f64: the same bits for any number of threads. A target outside of the vocabulary makes its loss NaN.
#include <limits>

#include "../check.h"
#include "../kernels.h"
#include "../parallel.h"
#include "../simd.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

/// exp of x <= 0. The rounding of x log2(e) errs by |x| exp(x) parts of 2^24, at most a third of one.
template <class real>
TITAN_INLINE vec<real> power(vec<real> x) {
  return exp2_quick<real>(x * real(LOG2E));
}

template <class real>
real log_sum_exp(const real* x, int64_t V) {
  const vec<real> lowest = splat(-std::numeric_limits<real>::infinity());
  vec<real> most = lowest, more = lowest;  // two chains; NaN is lost here and comes back through exp
  int64_t v = 0;
  for (; v + 2 * LANES<real> <= V; v += 2 * LANES<real>) {
    most = larger(most, load(x + v));
    more = larger(more, load(x + v + LANES<real>));
  }
  real peak = max_lanes<real>(larger(most, more));
  for (; v < V; v++) peak = peak < x[v] ? x[v] : peak;
  if (peak == lowest[0]) peak = 0;  // an empty row, or nothing but -inf and NaN

  vec<real> sum = {}, again = {};
  for (v = 0; v + 2 * LANES<real> <= V; v += 2 * LANES<real>) {
    sum += power<real>(load(x + v) - peak);
    again += power<real>(load(x + v + LANES<real>) - peak);
  }
  double total = double(sum_lanes<real>(sum + again));
  for (; v < V; v++) total += double(power<real>(splat(x[v] - peak))[0]);
  return real(double(peak) + std::log(total));
}

template <class real>
void cross_entropy(const Call& call) {
  const Tensor &logits = call[0], &targets = call[1], &lse = call[4];
  const int64_t N = logits.dims[0], V = logits.dims[1], ignore = call.attributes[0].i;
  real *losses = call[5].as<real>(), *counted = losses + N;
  for_each(N, call.threads, [&](int64_t n) {
    const real* row = logits.as<real>() + n * logits.strides[0];
    const int64_t target = targets.as<int32_t>()[n * targets.strides[0]];
    const real z = log_sum_exp(row, V);
    lse.as<real>()[n * lse.strides[0]] = z;
    counted[n] = target != ignore;
    losses[n] = target == ignore ? 0 : target >= 0 && target < V ? z - row[target] : std::numeric_limits<real>::quiet_NaN();
  });
  double loss = 0, count = 0;
  for (int64_t n = 0; n < N; n++) loss += double(losses[n]), count += double(counted[n]);
  *call[2].as<real>() = real(loss);
  *call[3].as<real>() = real(count);
}

template <class real>
void cross_entropy_part(const Call& call) {
  const Tensor &logits = call[0], &targets = call[1], &lse = call[2], &logit = call[3];
  const int64_t N = logits.dims[0], V = logits.dims[1], ignore = call.attributes[0].i, start = call.attributes[1].i, whole = call.attributes[2].i;
  for_each(N, call.threads, [&](int64_t n) {
    const real* row = logits.as<real>() + n * logits.strides[0];
    const int64_t target = targets.as<int32_t>()[n * targets.strides[0]], own = target - start;
    const bool elsewhere = target == ignore || (target >= 0 && target < whole);
    lse.as<real>()[n * lse.strides[0]] = log_sum_exp(row, V);
    logit.as<real>()[n * logit.strides[0]] = target != ignore && own >= 0 && own < V ? row[own] : elsewhere ? 0 : std::numeric_limits<real>::quiet_NaN();
  });
}

template <class real>
void cross_entropy_backward(const Call& call) {
  const Tensor &logits = call[0], &targets = call[1], &lse = call[2], &dlogits = call[4];
  const int64_t N = logits.dims[0], V = logits.dims[1], ignore = call.attributes[0].i, start = call.attributes[1].i;
  const real dloss = *call[3].as<real>();
  for_each(N, call.threads, [&](int64_t n) {
    const real *x = logits.as<real>() + n * logits.strides[0], z = lse.as<real>()[n * lse.strides[0]];
    const int64_t target = targets.as<int32_t>()[n * targets.strides[0]], own = target - start;
    real* dx = dlogits.as<real>() + n * dlogits.strides[0];
    if (target == ignore) for_lanes<real>(V, [&](int64_t v, int64_t lanes) { store(dx + v, vec<real>{}, lanes); });
    else for_lanes<real>(V, [&](int64_t v, int64_t lanes) { store(dx + v, power<real>(load(x + v, lanes) - z) * dloss, lanes); });
    if (target != ignore && own >= 0 && own < V) dx[own] -= dloss;
  });
}

}  // namespace

void run_cross_entropy(const Call& call) {
  with_real(call[0].dtype, [&](auto zero) { cross_entropy<decltype(zero)>(call); });
}
void run_cross_entropy_part(const Call& call) {
  with_real(call[0].dtype, [&](auto zero) { cross_entropy_part<decltype(zero)>(call); });
}
void run_cross_entropy_backward(const Call& call) {
  with_real(call[0].dtype, [&](auto zero) { cross_entropy_backward<decltype(zero)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_cross_entropy(const Call& call) {
  Check check(call, {"logits", "targets", "loss", "count", "lse", "scratch"}, 1);
  const DType real = check.real(0);
  const int64_t N = check.dim(0, 0), V = check.dim(0, 1);
  check.operand(0, real, {N, V}).operand(1, DType::i32, {N}).operand(2, real, {}).operand(3, real, {}).operand(4, real, {N});
  return check.rows(0).writable(4).scratch(5, 2 * N * int64_t(size_of(real))).error();
}
std::string check_cross_entropy_part(const Call& call) {
  Check check(call, {"logits", "targets", "lse", "logit"}, 3);
  if (!check.ok()) return check.error();
  const DType real = check.real(0);
  const int64_t N = check.dim(0, 0), V = check.dim(0, 1), start = call.attributes[1].i, whole = call.attributes[2].i;
  check.require(start >= 0 && start <= whole - V, "the slice is " + std::to_string(start) + " to " + std::to_string(start + V) + " of " + std::to_string(whole) + "; expected: a slice of the whole vocabulary");
  check.operand(0, real, {N, V}).operand(1, DType::i32, {N}).operand(2, real, {N}).operand(3, real, {N});
  return check.rows(0).writable(2).writable(3).error();
}
std::string check_cross_entropy_backward(const Call& call) {
  Check check(call, {"logits", "targets", "lse", "dloss", "dlogits"}, 2);
  const DType real = check.real(0);
  const int64_t N = check.dim(0, 0), V = check.dim(0, 1);
  check.operand(0, real, {N, V}).operand(1, DType::i32, {N}).operand(2, real, {N}).operand(3, real, {}).operand(4, real, {N, V});
  return check.rows(0).rows(4).writable(4).error();
}
}  // namespace titan::cpu
#endif
