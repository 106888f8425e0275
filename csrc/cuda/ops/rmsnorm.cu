// RMSNorm, alone or with the residual sum before it, and its gradient (csrc/cpu/ops/rmsnorm.cpp). N rows of D elements, a block for each.
// Memory-bound, an f32 element of a row moves
//   rmsnorm           8 bytes:  x read, y written (the second reading of x comes from L1 or L2)
//   add_rmsnorm       16 bytes: x and r read, s and y written
//   rmsnorm_backward  12 bytes, 16 with a residual: x, dy (and residual) read, dx written
// dw is summed by as many blocks as scratch has rows for, each its own share of the rows in shared memory, then over the blocks in order. Any of x, r, residual and
// dy may be the output: an element is read by the thread that writes it, and before.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

constexpr int64_t MOST_PARTS = 512;
/// Shared memory for a block's dw: a multiprocessor of an A100, or a later one, has it for two blocks.
constexpr int64_t MOST_BYTES = 64 << 10;
constexpr int ROWS = 16;

template <class real>
struct Norm {
  Elements<real> x, w, y;
  real* rstd;
  int64_t x_row, y_row, rstd_stride, N, D;
  double eps;
  Lanes lanes;
};

/// Row n of y and rstd, from the squares of this thread's elements of x.
template <class real>
__device__ void norm_row(const Norm<real>& norm, const Elements<real>& x, int64_t n, real squares) {
  const real rstd = 1 / std::sqrt(real(join_block(double(squares), Sum()) / double(norm.D) + norm.eps));
  if (threadIdx.x == 0) norm.rstd[n * norm.rstd_stride] = rstd;
  const Elements<real> y = norm.y + n * norm.y_row;
  for_row(norm.D, norm.lanes, threadIdx.x, blockDim.x, [&](int64_t d, auto width) {
    real a[width.value], w[width.value];
    load(d, x, a, norm.w, w);
    for (int k = 0; k < width.value; k++) a[k] = a[k] * rstd * w[k];
    y.store(d, a);
  });
}

template <class real>
__global__ void rmsnorm(Norm<real> norm) {
  for (int64_t n = blockIdx.x; n < norm.N; n += gridDim.x) {
    const Elements<real> x = norm.x + n * norm.x_row;
    real squares = 0;
    for_row(norm.D, norm.lanes, threadIdx.x, blockDim.x, [&](int64_t d, auto width) {
      real a[width.value];
      x.load(d, a);
      for (int k = 0; k < width.value; k++) squares += a[k] * a[k];
    });
    norm_row(norm, x, n, squares);
  }
}

/// norm.x is the sum s, which is written first.
template <class real>
__global__ void add_rmsnorm(Norm<real> norm, Elements<real> x, Elements<real> r, int64_t x_row, int64_t r_row) {
  for (int64_t n = blockIdx.x; n < norm.N; n += gridDim.x) {
    const Elements<real> a = x + n * x_row, b = r + n * r_row, s = norm.x + n * norm.x_row;
    real squares = 0;
    for_row(norm.D, norm.lanes, threadIdx.x, blockDim.x, [&](int64_t d, auto width) {
      real sum[width.value], other[width.value];
      load(d, a, sum, b, other);
      for (int k = 0; k < width.value; k++) sum[k] += other[k];
      s.store(d, sum);
      s.load(d, sum);  // as it is stored
      for (int k = 0; k < width.value; k++) squares += sum[k] * sum[k];
    });
    norm_row(norm, s, n, squares);
  }
}

template <class real>
struct Backward {
  Elements<real> x, w, dy, residual, dx;
  const real* rstd;
  real* scratch;
  int64_t x_row, dy_row, residual_row, dx_row, rstd_stride, N, D, parts;
  bool shares;  // is there shared memory for dw?
  Lanes lanes;
};
/// The rows of one part after another. A thread has the same columns of each, and sums their dw in shared memory, or where rows are too long for that
/// where the result goes.
template <class real>
__global__ void backward_rows(Backward<real> c) {
  const int64_t part = blockIdx.x;
  constexpr DType dtype = sizeof(real) == 4 ? DType::f32 : DType::f64;
  const Elements<real> result{c.scratch + part * c.D, dtype}, partial = c.shares ? Elements<real>{dynamic_shared(), dtype} : result;
  const auto own_columns = [&](auto f) { for_row(c.D, c.lanes, threadIdx.x, blockDim.x, f); };
  own_columns([&](int64_t d, auto width) {
    const real none[width.value] = {};
    partial.store(d, none);
  });
  for (int64_t n = c.N * part / c.parts; n < c.N * (part + 1) / c.parts; n++) {
    const Elements<real> x = c.x + n * c.x_row, dy = c.dy + n * c.dy_row, residual = c.residual + n * c.residual_row, dx = c.dx + n * c.dx_row;
    const real q = c.rstd[n * c.rstd_stride];
    real dot = 0;
    own_columns([&](int64_t d, auto width) {
      real a[width.value], g[width.value], w[width.value], sum[width.value];
      load(d, x, a, dy, g, c.w, w);
      partial.load(d, sum);
      for (int k = 0; k < width.value; k++) sum[k] += g[k] * a[k] * q, dot += g[k] * a[k] * w[k];
      partial.store(d, sum);
    });
    const real mean = real(join_block(double(dot), Sum())) * q * q * q / real(c.D);
    own_columns([&](int64_t d, auto width) {
      real a[width.value], g[width.value], w[width.value], out[width.value] = {};
      if (c.residual.data) load(d, x, a, dy, g, c.w, w, residual, out);
      else load(d, x, a, dy, g, c.w, w);
      for (int k = 0; k < width.value; k++) out[k] += g[k] * w[k] * q - a[k] * mean;
      dx.store(d, out);
    });
  }
  if (c.shares) own_columns([&](int64_t d, auto width) {
    real sum[width.value];
    partial.load(d, sum);
    result.store(d, sum);
  });
}
/// dw of WARP neighbouring columns: the block's rows of threads take every ROWS-th part.
template <class real>
__global__ void sum_parts(const real* scratch, Elements<real> dw, int64_t D, int64_t parts, bool adds) {
  __shared__ real sums[ROWS][WARP];
  const int64_t d = int64_t{blockIdx.x} * WARP + threadIdx.x;
  real sum = 0;
  for (int64_t part = threadIdx.y; d < D && part < parts; part += ROWS) sum += scratch[part * D + d];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || d >= D) return;
  sum = adds ? dw[d] : 0;
  for (int row = 0; row < ROWS; row++) sum += sums[row][threadIdx.x];
  dw.put(d, sum);
}

template <class real>
Norm<real> norm_of(const Call& call, const Tensor& x, const Tensor& w, const Tensor& y, const Tensor& rstd) {
  return {x, w, y, rstd.as<real>(), x.strides[0], y.strides[0], rstd.strides[0], x.dims[0], x.dims[1], call.attributes[0].f, Lanes({&x, &w, &y})};
}

}  // namespace

void run_rmsnorm(const Call& call) {
  with_real(call[3], [&](auto zero) {
    using real = decltype(zero);
    const auto norm = norm_of<real>(call, call[0], call[1], call[2], call[3]);
    launch(rmsnorm<real>, {blocks_for(norm.N, 1), threads_for(norm.D)}, call, norm);
  });
}
void run_add_rmsnorm(const Call& call) {
  with_real(call[5], [&](auto zero) {
    using real = decltype(zero);
    auto norm = norm_of<real>(call, call[3], call[2], call[4], call[5]);
    norm.lanes = Lanes({&call[0], &call[1], &call[2], &call[3], &call[4]});
    launch(add_rmsnorm<real>, {blocks_for(norm.N, 1), threads_for(norm.D)}, call, norm, Elements<real>(call[0]), Elements<real>(call[1]), call[0].strides[0], call[1].strides[0]);
  });
}
void run_rmsnorm_backward(const Call& call) {
  with_real(call[1], [&](auto zero) {
    using real = decltype(zero);
    const Tensor &x = call[0], &rstd = call[1], &w = call[2], &dy = call[3], &residual = call[4], &dx = call[5], &dw = call[6], &scratch = call[7];
    const int64_t N = x.dims[0], D = x.dims[1], room = D ? scratch.dims[0] / (D * int64_t(sizeof(real))) : 0, parts = std::min({N, room, MOST_PARTS});
    Tensor sums = rstd;  // the type that they have in scratch
    sums.data = scratch.data, sums.rank = 2, sums.dims[0] = parts, sums.strides[0] = D;
    const Lanes lanes({&x, &w, &dy, &residual, &dx, &sums});
    const int64_t bytes = D * int64_t(sizeof(real)), shared_bytes = bytes <= MOST_BYTES ? bytes : 0;
    const Backward<real> c{x, w, dy, residual, dx, rstd.as<real>(), scratch.as<real>(), x.strides[0], dy.strides[0], residual.data ? residual.strides[0] : 0, dx.strides[0], rstd.strides[0], N, D, parts, shared_bytes != 0, lanes};
    launch(backward_rows<real>, {unsigned(parts), threads_for(D), unsigned(shared_bytes)}, call, c);
    launch(sum_parts<real>, {blocks_for(D, WARP), dim3(WARP, ROWS)}, call, scratch.as<real>(), Elements<real>(dw), D, parts, call.adds(call.attributes[0].i));
  });
}

}  // namespace titan::cuda
