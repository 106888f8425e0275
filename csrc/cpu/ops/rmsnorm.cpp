// RMSNorm, alone or with the residual sum before it, and its gradient. N rows of D elements.
//   rmsnorm           rstd[n] = 1 / sqrt(mean_d x[n,d]^2 + eps),  y = x rstd w
//   add_rmsnorm       s = x + r,  y = rmsnorm(s): the sum is written and normed while it is in cache
//   rmsnorm_backward  dx = residual + rstd (dy w) - x rstd^3 mean(dy w x),   dw (+)= sum over n of dy x rstd
// Memory-bound: a row is read from memory once and sits in L1 for its second pass. dw is summed in PARTS fixed runs of rows, each in
// its own row of scratch, then over those in order: the same bits for any number of threads. Any of x, r, residual and dy may be the output.
#include <algorithm>

#include "../check.h"
#include "../kernels.h"
#include "../simd.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

constexpr int64_t PARTS = 64;

/// y = x w / rms(x); returns 1 / rms(x).
template <class real>
real norm_row(const real* x, const real* w, real* y, int64_t D, double eps) {
  vec<real> squares = {};
  for_lanes<real>(D, [&](int64_t d, int64_t lanes) {
    const vec<real> v = load(x + d, lanes);
    squares += v * v;
  });
  const real rstd = real(1 / std::sqrt(double(sum_lanes<real>(squares)) / double(D) + eps));
  for_lanes<real>(D, [&](int64_t d, int64_t lanes) { store(y + d, load(x + d, lanes) * rstd * load(w + d, lanes), lanes); });
  return rstd;
}

template <class real>
void rmsnorm(const Call& call) {
  const Tensor &x = call[0], &w = call[1], &y = call[2], &rstd = call[3];
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (int64_t n = 0; n < x.dims[0]; n++)
    rstd.as<real>()[n * rstd.strides[0]] = norm_row(x.as<real>() + n * x.strides[0], w.as<real>(), y.as<real>() + n * y.strides[0], x.dims[1], call.attributes[0].f);
}

template <class real>
void add_rmsnorm(const Call& call) {
  const Tensor &x = call[0], &r = call[1], &w = call[2], &s = call[3], &y = call[4], &rstd = call[5];
  const int64_t D = x.dims[1];
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (int64_t n = 0; n < x.dims[0]; n++) {
    const real *a = x.as<real>() + n * x.strides[0], *b = r.as<real>() + n * r.strides[0];
    real* sum = s.as<real>() + n * s.strides[0];
    for_lanes<real>(D, [&](int64_t d, int64_t lanes) { store(sum + d, load(a + d, lanes) + load(b + d, lanes), lanes); });
    rstd.as<real>()[n * rstd.strides[0]] = norm_row<real>(sum, w.as<real>(), y.as<real>() + n * y.strides[0], D, call.attributes[0].f);
  }
}

template <class real>
void rmsnorm_backward(const Call& call) {
  const Tensor &x = call[0], &rstd = call[1], &w = call[2], &dy = call[3], &residual = call[4], &dx = call[5], &dw = call[6];
  const int64_t N = x.dims[0], D = x.dims[1], parts = std::min(N, PARTS);
  real* scratch = call[7].as<real>();
  const bool add = call.adds(call.attributes[0].i);
#pragma omp parallel num_threads(call.threads)
  {
#pragma omp for schedule(static)
    for (int64_t part = 0; part < parts; part++) {
      real* partial = scratch + part * D;
      std::fill_n(partial, D, real(0));
      for (int64_t n = N * part / parts; n < N * (part + 1) / parts; n++) {
        const real *a = x.as<real>() + n * x.strides[0], *g = dy.as<real>() + n * dy.strides[0], *weight = w.as<real>();
        const real *before = present(residual) ? residual.as<real>() + n * residual.strides[0] : nullptr, q = rstd.as<real>()[n * rstd.strides[0]];
        real* out = dx.as<real>() + n * dx.strides[0];
        vec<real> dot = {};
        for_lanes<real>(D, [&](int64_t d, int64_t lanes) {
          const vec<real> product = load(g + d, lanes) * load(a + d, lanes);
          store(partial + d, load(partial + d, lanes) + product * q, lanes);
          dot += product * load(weight + d, lanes);
        });
        const real mean = sum_lanes<real>(dot) * q * q * q / real(D);
        auto gradient = [&](int64_t d, int64_t lanes) { return load(g + d, lanes) * load(weight + d, lanes) * q - load(a + d, lanes) * mean; };
        if (before) for_lanes<real>(D, [&](int64_t d, int64_t lanes) { store(out + d, load(before + d, lanes) + gradient(d, lanes), lanes); });
        else for_lanes<real>(D, [&](int64_t d, int64_t lanes) { store(out + d, gradient(d, lanes), lanes); });
      }
    }
#pragma omp for schedule(static)
    for (int64_t first = 0; first < D; first += LANES<real>) {
      const int64_t lanes = std::min<int64_t>(LANES<real>, D - first);
      vec<real> sum = add ? load(dw.as<real>() + first, lanes) : vec<real>{};
      for (int64_t part = 0; part < parts; part++) sum += load(scratch + part * D + first, lanes);
      store(dw.as<real>() + first, sum, lanes);
    }
  }
}

}  // namespace

void run_rmsnorm(const Call& call) {
  with_real(call[0].dtype, [&](auto zero) { rmsnorm<decltype(zero)>(call); });
}
void run_add_rmsnorm(const Call& call) {
  with_real(call[0].dtype, [&](auto zero) { add_rmsnorm<decltype(zero)>(call); });
}
void run_rmsnorm_backward(const Call& call) {
  with_real(call[0].dtype, [&](auto zero) { rmsnorm_backward<decltype(zero)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_rmsnorm(const Call& call) {
  Check check(call, {"x", "w", "y", "rstd"}, 1);
  const DType real = check.real(0);
  const int64_t N = check.dim(0, 0), D = check.dim(0, 1);
  check.operand(0, real, {N, D}).operand(1, real, {D}).operand(2, real, {N, D}).operand(3, real, {N});
  return check.rows(0).rows(1).rows(2).writable(2).writable(3).error();
}
std::string check_add_rmsnorm(const Call& call) {
  Check check(call, {"x", "r", "w", "s", "y", "rstd"}, 1);
  const DType real = check.real(0);
  const int64_t N = check.dim(0, 0), D = check.dim(0, 1);
  check.operand(0, real, {N, D}).operand(1, real, {N, D}).operand(2, real, {D}).operand(3, real, {N, D}).operand(4, real, {N, D}).operand(5, real, {N});
  return check.rows(0).rows(1).rows(2).rows(3).rows(4).writable(3).writable(4).writable(5).error();
}
std::string check_rmsnorm_backward(const Call& call) {
  Check check(call, {"x", "rstd", "w", "dy", "residual", "dx", "dw", "scratch"}, 1);
  const DType real = check.real(0);
  const int64_t N = check.dim(0, 0), D = check.dim(0, 1);
  check.operand(0, real, {N, D}).operand(1, real, {N}).operand(2, real, {D}).operand(3, real, {N, D}).operand(5, real, {N, D}).operand(6, real, {D});
  if (check.ok() && present(call[4])) check.operand(4, real, {N, D}).rows(4);
  check.rows(0).rows(2).rows(3).rows(5).rows(6).writable(5).writable(6);
  return check.scratch(7, std::min(N, PARTS) * D * int64_t(size_of(real))).error();
}
}  // namespace titan::cpu
#endif
