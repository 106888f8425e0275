// Softmax cross-entropy over rows of logits, alone or of a slice of the vocabulary, and its gradient (csrc/cpu/ops/cross_entropy.cpp). A block for each row.
// Memory-bound: a logit is read once (4 bytes in f32), with a running maximum and sum; backward reads and writes it (8 bytes). Row losses go to scratch
// and are summed by one block in f64, in an order that depends on their number alone. A target outside of the vocabulary makes its loss NaN.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

/// log sum exp of a row, in all threads.
template <class real>
__device__ real log_sum_exp(const Elements<real>& x, int64_t V, const Lanes& lanes) {
  constexpr real lowest = -std::numeric_limits<real>::infinity();
  real peak = lowest, sum = 0;
  for_row(V, lanes, threadIdx.x, blockDim.x, [&](int64_t v, auto width) {
    real a[width.value];
    x.load(v, a);
    real largest = a[0];
    for (int k = 1; k < width.value; k++) largest = largest < a[k] ? a[k] : largest;
    if (largest > peak) {
      sum *= std::exp(peak - largest);
      peak = largest;
    }
    for (int k = 0; k < width.value; k++)
      if (a[k] != lowest) sum += std::exp(a[k] - peak);  // NaN shows
  });
  const real top = join_block(peak, Max());
  const double scaled = peak == lowest ? double(sum) : double(sum) * std::exp(double(peak - top));
  const double total = join_block(scaled, Sum());
  return real((top == lowest ? 0 : double(top)) + std::log(total));
}

template <class real>
struct Rows {
  Elements<real> logits;
  const int32_t* targets;
  int64_t row, target_stride, N, V, ignore, start, whole;
  Lanes lanes;
  __device__ int64_t target(int64_t n) const { return targets[n * target_stride]; }
};

template <class real>
__global__ void cross_entropy(Rows<real> rows, real* lse, int64_t lse_stride, real* losses, real* counted) {
  for (int64_t n = blockIdx.x; n < rows.N; n += gridDim.x) {
    const Elements<real> x = rows.logits + n * rows.row;
    const real z = log_sum_exp(x, rows.V, rows.lanes);
    if (threadIdx.x != 0) continue;
    const int64_t target = rows.target(n);
    lse[n * lse_stride] = z;
    counted[n] = target != rows.ignore;
    losses[n] = target == rows.ignore ? 0 : target >= 0 && target < rows.V ? z - x[target] : std::numeric_limits<real>::quiet_NaN();
  }
}
template <class real>
__global__ void sum_losses(const real* losses, const real* counted, int64_t N, real* loss, real* count) {
  double sum = 0, number = 0;
  for (int64_t n = threadIdx.x; n < N; n += blockDim.x) sum += double(losses[n]), number += double(counted[n]);
  sum = join_block(sum, Sum());
  number = join_block(number, Sum());
  if (threadIdx.x == 0) *loss = real(sum), *count = real(number);
}

template <class real>
__global__ void cross_entropy_part(Rows<real> rows, real* lse, int64_t lse_stride, real* logit, int64_t logit_stride) {
  for (int64_t n = blockIdx.x; n < rows.N; n += gridDim.x) {
    const Elements<real> x = rows.logits + n * rows.row;
    const real z = log_sum_exp(x, rows.V, rows.lanes);
    if (threadIdx.x != 0) continue;
    const int64_t target = rows.target(n), own = target - rows.start;
    const bool elsewhere = target == rows.ignore || (target >= 0 && target < rows.whole);
    lse[n * lse_stride] = z;
    logit[n * logit_stride] = target != rows.ignore && own >= 0 && own < rows.V ? x[own] : elsewhere ? 0 : std::numeric_limits<real>::quiet_NaN();
  }
}

template <class real>
__global__ void cross_entropy_backward(Rows<real> rows, const real* lse, int64_t lse_stride, const real* dloss, Elements<real> dlogits, int64_t dlogits_row) {
  const real scale = *dloss;
  for (int64_t n = blockIdx.x; n < rows.N; n += gridDim.x) {
    const Elements<real> x = rows.logits + n * rows.row, dx = dlogits + n * dlogits_row;
    const real z = lse[n * lse_stride];
    const int64_t target = rows.target(n), own = target - rows.start;
    for_row(rows.V, rows.lanes, threadIdx.x, blockDim.x, [&](int64_t v, auto width) {
      real a[width.value] = {};
      if (target != rows.ignore) {
        x.load(v, a);
        for (int k = 0; k < width.value; k++) a[k] = std::exp(a[k] - z) * scale - (v + k == own ? scale : 0);
      }
      dx.store(v, a);
    });
  }
}

template <class real>
Rows<real> rows_of(const Call& call, int64_t start, int64_t whole) {
  const Tensor &logits = call[0], &targets = call[1];
  return {logits, targets.as<int32_t>(), logits.strides[0], targets.strides[0], logits.dims[0], logits.dims[1], call.attributes[0].i, start, whole, Lanes({&logits})};
}

}  // namespace

void run_cross_entropy(const Call& call) {
  with_real(call[0], [&](auto zero) {
    using real = decltype(zero);
    const auto rows = rows_of<real>(call, 0, call[0].dims[1]);
    real *const losses = call[5].as<real>(), *const counted = losses + rows.N;
    launch(cross_entropy<real>, {blocks_for(rows.N, 1), threads_for(rows.V)}, call, rows, call[4].as<real>(), call[4].strides[0], losses, counted);
    launch(sum_losses<real>, {1, 1024}, call, losses, counted, rows.N, call[2].as<real>(), call[3].as<real>());
  });
}
void run_cross_entropy_part(const Call& call) {
  with_real(call[0], [&](auto zero) {
    using real = decltype(zero);
    const auto rows = rows_of<real>(call, call.attributes[1].i, call.attributes[2].i);
    launch(cross_entropy_part<real>, {blocks_for(rows.N, 1), threads_for(rows.V)}, call, rows, call[2].as<real>(), call[2].strides[0], call[3].as<real>(), call[3].strides[0]);
  });
}
void run_cross_entropy_backward(const Call& call) {
  with_real(call[0], [&](auto zero) {
    using real = decltype(zero);
    auto rows = rows_of<real>(call, call.attributes[1].i, 0);
    rows.lanes = Lanes({&call[0], &call[4]});
    launch(cross_entropy_backward<real>, {blocks_for(rows.N, 1), threads_for(rows.V)}, call, rows, call[2].as<real>(), call[2].strides[0], call[3].as<real>(), Elements<real>(call[4]), call[4].strides[0]);
  });
}

}  // namespace titan::cuda
