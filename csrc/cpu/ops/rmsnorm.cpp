// RMSNorm, alone or with the residual sum before it, and its gradient. N rows of D elements.
//   rmsnorm           rstd[n] = 1 / sqrt(mean_d x[n,d]^2 + eps),  y = x rstd w
//   add_rmsnorm       s = x + r,  y = rmsnorm(s): the sum is written and normed while it is in cache
//   rmsnorm_backward  dx = residual + rstd (dy w) - x rstd^3 mean(dy w x),   dw (+)= sum over n of dy x rstd
// Memory-bound: a row is read from memory once and sits in L1 for its second pass. dw is summed in PARTS fixed runs of rows, each in
// its own row of scratch, then over those in order: the same bits for any number of threads. Any of x, r, residual and dy may be the output.
#include <algorithm>

#include "../kernels.h"
#include "../parallel.h"
#include "../storage.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

constexpr int64_t PARTS = 64;

/// y = x w / rms(x); returns 1 / rms(x).
template <class S>
computed<S> norm_row(Row<S> x, Row<S> w, Row<S> y, int64_t D, double eps) {
  using real = computed<S>;
  vec<real> squares = {};
  for_lanes<real>(D, [&](int64_t d, int64_t lanes) {
    const vec<real> v = x.load(d, lanes);
    squares += v * v;
  });
  const real rstd = real(1 / std::sqrt(double(sum_lanes<real>(squares)) / double(D) + eps));
  for_lanes<real>(D, [&](int64_t d, int64_t lanes) { y.store(d, x.load(d, lanes) * rstd * w.load(d, lanes), lanes); });
  return rstd;
}

template <class S>
void rmsnorm(const Call& call) {
  const Tensor &x = call[0], &w = call[1], &y = call[2], &rstd = call[3];
  for_each_of(x.dims[0], x.dims[1], call.threads, [&](int64_t n) {
    rstd.as<computed<S>>()[n * rstd.strides[0]] = norm_row<S>(row<S>(x, n), row<S>(w, 0), row<S>(y, n), x.dims[1], call.attributes[0].f);
  });
}

template <class S>
void add_rmsnorm(const Call& call) {
  using real = computed<S>;
  const Tensor &x = call[0], &r = call[1], &w = call[2], &s = call[3], &y = call[4], &rstd = call[5];
  const int64_t D = x.dims[1];
  for_each_of(x.dims[0], D, call.threads, [&](int64_t n) {
    const Row<S> a = row<S>(x, n), b = row<S>(r, n), sum = row<S>(s, n);
    for_lanes<real>(D, [&](int64_t d, int64_t lanes) { sum.store(d, a.load(d, lanes) + b.load(d, lanes), lanes); });
    rstd.as<real>()[n * rstd.strides[0]] = norm_row<S>(sum, row<S>(w, 0), row<S>(y, n), D, call.attributes[0].f);
  });
}

template <class S>
void rmsnorm_backward(const Call& call) {
  using real = computed<S>;
  const Tensor &x = call[0], &rstd = call[1], &w = call[2], &dy = call[3], &residual = call[4], &dx = call[5], &dw = call[6];
  const int64_t N = x.dims[0], D = x.dims[1], parts = std::min(N, PARTS);
  real* scratch = call[7].as<real>();
  const bool add = call.adds(call.attributes[0].i);
  for_each(parts, call.threads, [&](int64_t part) {
    real* partial = scratch + part * D;
    std::fill_n(partial, D, real(0));
    for (int64_t n = N * part / parts; n < N * (part + 1) / parts; n++) {
      const Row<S> a = row<S>(x, n), g = row<S>(dy, n), weight = row<S>(w, 0), before = row<S>(residual, n), out = row<S>(dx, n);
      const real q = rstd.as<real>()[n * rstd.strides[0]];
      vec<real> dot = {};
      for_lanes<real>(D, [&](int64_t d, int64_t lanes) {
        const vec<real> product = g.load(d, lanes) * a.load(d, lanes);
        store(partial + d, load(partial + d, lanes) + product * q, lanes);
        dot += product * weight.load(d, lanes);
      });
      const real mean = sum_lanes<real>(dot) * q * q * q / real(D);
      auto gradient = [&](int64_t d, int64_t lanes) { return g.load(d, lanes) * weight.load(d, lanes) * q - a.load(d, lanes) * mean; };
      if (present(residual)) for_lanes<real>(D, [&](int64_t d, int64_t lanes) { out.store(d, before.load(d, lanes) + gradient(d, lanes), lanes); });
      else for_lanes<real>(D, [&](int64_t d, int64_t lanes) { out.store(d, gradient(d, lanes), lanes); });
    }
  });
  for_each((D + LANES<real> - 1) / LANES<real>, call.threads, [&](int64_t v) {
    const int64_t first = v * LANES<real>, lanes = std::min<int64_t>(LANES<real>, D - first);
    const Row<S> total = row<S>(dw, 0);
    vec<real> sum = add ? total.load(first, lanes) : vec<real>{};
    for (int64_t part = 0; part < parts; part++) sum += load(scratch + part * D + first, lanes);
    total.store(first, sum, lanes);
  });
}

}  // namespace

void run_rmsnorm(const Call& call) {
  with_storage(call, [&](auto storage) { rmsnorm<decltype(storage)>(call); });
}
void run_add_rmsnorm(const Call& call) {
  with_storage(call, [&](auto storage) { add_rmsnorm<decltype(storage)>(call); });
}
void run_rmsnorm_backward(const Call& call) {
  with_storage(call, [&](auto storage) { rmsnorm_backward<decltype(storage)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_rmsnorm(const Call& call) {
  Check check(call, {"x", "w", "y", "rstd"}, 1);
  const DType real = check.real_or_bf16(0);
  const int64_t N = check.dim(0, 0), D = check.dim(0, 1);
  check.real_or_bf16(0, real, {N, D}).real_or_bf16(1, real, {D}).real_or_bf16(2, real, {N, D}).operand(3, real, {N}).in_place(0, 2);
  return check.rows(0).rows(1).rows(2).writable(2).writable(3).error();
}
std::string check_add_rmsnorm(const Call& call) {
  Check check(call, {"x", "r", "w", "s", "y", "rstd"}, 1);
  const DType real = check.real_or_bf16(0);
  const int64_t N = check.dim(0, 0), D = check.dim(0, 1);
  check.real_or_bf16(0, real, {N, D}).real_or_bf16(1, real, {N, D}).real_or_bf16(2, real, {D}).real_or_bf16(3, real, {N, D}).real_or_bf16(4, real, {N, D}).operand(5, real, {N});
  for (int input : {0, 1})
    for (int output : {3, 4}) check.in_place(input, output);
  return check.rows(0).rows(1).rows(2).rows(3).rows(4).writable(3).writable(4).writable(5).error();
}
std::string check_rmsnorm_backward(const Call& call) {
  Check check(call, {"x", "rstd", "w", "dy", "residual", "dx", "dw", "scratch"}, 1);
  const DType real = check.real_or_bf16(0);
  const int64_t N = check.dim(0, 0), D = check.dim(0, 1);
  check.real_or_bf16(0, real, {N, D}).operand(1, real, {N}).real_or_bf16(2, real, {D}).real_or_bf16(3, real, {N, D}).real_or_bf16(5, real, {N, D}).real_or_bf16(6, real, {D});
  if (check.ok() && present(call[4])) check.real_or_bf16(4, real, {N, D}).rows(4);
  for (int input : {0, 3, 4}) check.in_place(input, 5);
  check.rows(0).rows(2).rows(3).rows(5).rows(6).writable(5).writable(6);
  return check.scratch(7, std::min(N, PARTS) * D * int64_t(size_of(real))).error();
}
}  // namespace titan::cpu
#endif
