// y = sum (kind 0), maximum (kind 1) or largest size (kind 2) of x over any dims; x may be bf16. y is viewed with x's dims and has stride 0 on the reduced ones.
// Memory-bound: x's element once. Either
//   across  the innermost contiguous dim of x is kept: a block sums WARP neighbouring columns, its warps every ROWS-th element of the reduced dims
//   along   else: a block sums one element of y; where that is of neighbouring elements of x, in words of 16 bytes
// There is no scratch, so a single sum has a single block, of 1024 threads. Sums are f64, in an order that depends on shapes alone.
// A NaN in x is a NaN in y, also for the maximum.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

constexpr int ROWS = 16;

template <class Op, class real>
__device__ double value(real x, Op) {
  return double(x);
}
struct MaxSize : Max {};
template <class real>
__device__ double value(real x, MaxSize) {
  return std::fabs(double(x));
}
template <class Op>
constexpr double IDENTITY = -std::numeric_limits<double>::infinity();
template <>
constexpr double IDENTITY<Sum> = 0;
template <>
constexpr double IDENTITY<MaxSize> = 0;

template <class real, class Op>
__global__ void along(Elements<real> x, real* y, Space<2> kept, Space<1> reduced, bool dense, Lanes lanes, Op op) {
  for (int64_t i = blockIdx.x; i < kept.total; i += gridDim.x) {
    int64_t at[2];
    kept.at(i, 2, at);
    double total = IDENTITY<Op>;
    if (dense) {
      const Elements<real> row = x + at[0];
      for_row(reduced.total, lanes, threadIdx.x, blockDim.x, [&](int64_t d, auto width) {
        real a[width.value];
        row.load(d, a);
        for (int k = 0; k < width.value; k++) total = op(total, value(a[k], op));
      });
    } else {
      for (int64_t k = threadIdx.x; k < reduced.total; k += blockDim.x) {
        int64_t place;
        reduced.at(k, 1, &place);
        total = op(total, value(x[at[0] + place], op));
      }
    }
    total = join_block(total, op);
    if (threadIdx.x == 0) y[at[1]] = real(total);
  }
}

template <class real, class Op>
__global__ void across(Elements<real> x, real* y, Space<2> kept, Space<1> reduced, int64_t strips, Op op) {
  __shared__ double parts[ROWS][WARP + 1];
  const int64_t columns = kept.dims[kept.rank - 1], pieces = (columns + WARP - 1) / WARP;
  for (int64_t strip = blockIdx.x; strip < strips; strip += gridDim.x) {
    const int64_t column = strip % pieces * WARP + threadIdx.x;
    int64_t at[2] = {};
    double total = IDENTITY<Op>;
    if (column < columns) {
      kept.at(strip / pieces * columns + column, 2, at);
      for (int64_t k = threadIdx.y; k < reduced.total; k += ROWS) {
        int64_t place;
        reduced.at(k, 1, &place);
        total = op(total, value(x[at[0] + place], op));
      }
    }
    __syncthreads();
    parts[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
      for (int row = 1; row < ROWS; row++) total = op(total, parts[row][threadIdx.x]);
      y[at[1]] = real(total);
    }
  }
}

template <class real, class Op>
void reduce(const Call& call, Op op) {
  const Tensor &x = call[0], &y = call[1];
  Tensor kept_dims[2] = {x, y}, reduced_dims = x;
  for (int d = 0; d < x.rank; d++)
    if (x.dims[d] != 1) (y.strides[d] ? reduced_dims.dims[d] : kept_dims[0].dims[d]) = 1;
  kept_dims[1] = y;
  std::copy_n(kept_dims[0].dims, x.rank, kept_dims[1].dims);
  const Space<2> kept(kept_dims, 2, 0);
  const Space<1> reduced(&reduced_dims, 1, 0);
  if (kept.rank && kept.strides[0][kept.rank - 1] == 1 && !(reduced.rank && reduced.strides[0][reduced.rank - 1] == 1)) {
    const int64_t columns = kept.dims[kept.rank - 1], strips = columns ? kept.total / columns * ((columns + WARP - 1) / WARP) : 0;
    launch(across<real, Op>, {blocks_for(strips, 1), dim3(WARP, ROWS)}, call, Elements<real>(x), y.as<real>(), kept, reduced, strips, op);
  } else {
    const unsigned threads = reduced.total < 1024 ? WARP : kept.total < 64 ? 1024 : BLOCK_THREADS;
    Tensor rows = x;  // as `along` walks over them
    rows.rank = kept.rank + 1;
    std::copy_n(kept.dims, kept.rank, rows.dims), std::copy_n(kept.strides[0], kept.rank, rows.strides);
    const bool dense = reduced.rank == 0 || (reduced.rank == 1 && reduced.strides[0][0] == 1);
    launch(along<real, Op>, {blocks_for(kept.total, 1), threads}, call, Elements<real>(x), y.as<real>(), kept, reduced, dense, Lanes({&rows}), op);
  }
}

}  // namespace

void run_reduce(const Call& call) {
  with_real(call[1], [&](auto zero) {
    using real = decltype(zero);
    const int64_t kind = call.attributes[0].i;
    if (kind == 0) reduce<real>(call, Sum());
    else if (kind == 1) reduce<real>(call, Max());
    else reduce<real>(call, MaxSize());
  });
}

}  // namespace titan::cuda
