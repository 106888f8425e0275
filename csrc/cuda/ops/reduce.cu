// y = sum (kind 0), maximum (kind 1) or largest size (kind 2) of x over any dims; x may be bf16. y is viewed with x's dims and has stride 0 on the reduced ones.
// Memory-bound: x's element once. Either
//   across  the innermost contiguous dim of x is kept: a block joins WARP neighbouring columns, its warps every ROWS-th element of the reduced dims
//   short   else, where few elements make one of y: neighbouring lanes of a warp join them
//   along   else: a block joins one element of y; both in words of 16 bytes where it is of neighbouring elements of x
// Where that is fewer than MOST_BLOCKS blocks of much work, `across` and `along` cut the reduced elements into parts, a block for each, whose results go
// to scratch, in f64, and are then joined in their order. The number of parts depends on shapes alone. Sums are f64, in a fixed order.
// A NaN in x is a NaN in y, also for the maximum.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

constexpr int ROWS = 16, AT_ONCE = 4;
/// Parts are of so many elements at least (of a column); scratch is asked for accordingly (graph/target/cpu/rows.ts).
constexpr int64_t MOST_BLOCKS = 1024, LEAST_ALONG = 16384, LEAST_ACROSS = 256;
constexpr int64_t MOST_SHORT = 256;

struct MaxSize : Max {};
/// What elements are joined in: a maximum is exact.
template <class Op, class real>
using Total = std::conditional_t<std::is_same_v<Op, Sum>, double, real>;
template <class Op, class real>
__device__ Total<Op, real> value(real x, Op) {
  if constexpr (std::is_same_v<Op, MaxSize>) return std::fabs(x);
  else return x;
}
template <class Op, class real>
constexpr Total<Op, real> IDENTITY = std::is_same_v<Op, Max> ? -std::numeric_limits<Total<Op, real>>::infinity() : 0;

/// Where what a block has joined goes: to y, or of one of several parts to scratch.
template <class real>
struct Results {
  real* y;
  double* scratch;
  int64_t parts, total;  // `total`: elements of y

  /// Where a part of n elements begins: at a whole word.
  __device__ int64_t begin(int64_t n, int64_t part) const { return part == parts ? n : n * part / parts / 8 * 8; }
  /// Of element i of y, which is at this place.
  __device__ void put(int64_t i, int64_t part, int64_t place, double x) const {
    if (parts > 1) scratch[part * total + i] = x;
    else y[place] = real(x);
  }
};

template <class real, class Op>
__global__ void along(Elements<real> x, Results<real> results, TITAN_PARAMETER(Space<2>) kept, TITAN_PARAMETER(Space<1>) reduced, bool dense, Lanes lanes, Op op) {
  for (int64_t task = blockIdx.x; task < kept.total * results.parts; task += gridDim.x) {
    const int64_t i = task / results.parts, part = task % results.parts, begin = results.begin(reduced.total, part), end = results.begin(reduced.total, part + 1);
    int64_t at[2];
    kept.at(i, 2, at);
    Total<Op, real> total = IDENTITY<Op, real>;
    if (dense) {
      const Elements<real> row = x + (at[0] + begin);
      for_row(end - begin, lanes, threadIdx.x, blockDim.x, [&](int64_t d, auto width) {
        real a[width.value];
        row.load(d, a);
        for (int k = 0; k < width.value; k++) total = op(total, value(a[k], op));
      });
    } else {
      for (int64_t k = begin + threadIdx.x; k < end; k += blockDim.x) {
        int64_t place;
        reduced.at(k, 1, &place);
        total = op(total, value(x[at[0] + place], op));
      }
    }
    total = join_block(total, op);
    if (threadIdx.x == 0) results.put(i, part, at[1], total);
  }
}

/// `each` neighbouring threads, a power of two, for an element of y.
template <class real, class Op>
__global__ void along_short(Elements<real> x, real* y, TITAN_PARAMETER(Space<2>) kept, TITAN_PARAMETER(Space<1>) reduced, bool dense, Lanes lanes, int each, Op op) {
  const int64_t own = threadIdx.x / each, lane = threadIdx.x % each, rows = blockDim.x / each;
  for (int64_t first = int64_t{blockIdx.x} * rows; first < kept.total; first += int64_t{gridDim.x} * rows) {
    const bool exists = first + own < kept.total;
    int64_t at[2] = {};
    Total<Op, real> total = IDENTITY<Op, real>;
    if (exists) {
      kept.at(first + own, 2, at);
      if (dense) {
        const Elements<real> row = x + at[0];
        for_row(reduced.total, lanes, lane, each, [&](int64_t d, auto width) {
          real a[width.value];
          row.load(d, a);
          for (int k = 0; k < width.value; k++) total = op(total, value(a[k], op));
        });
      } else {
        for (int64_t k = lane; k < reduced.total; k += each) {
          int64_t place;
          reduced.at(k, 1, &place);
          total = op(total, value(x[at[0] + place], op));
        }
      }
    }
    for (int with = each / 2; with; with /= 2) total = op(total, __shfl_xor_sync(~0u, total, with));
    if (exists && lane == 0) y[at[1]] = real(total);
  }
}

/// Every ROWS-th element from `first` on, AT_ONCE of which are under way together.
template <class real, class T, class Sums, class Op>
__device__ void join_column(const T* x, const Space<1>& reduced, int64_t first, int64_t end, Sums& total, Op op) {
  for (; first < end; first += AT_ONCE * ROWS) {
    T a[AT_ONCE] = {};
    for (int j = 0; j < AT_ONCE; j++) {
      int64_t place;
      reduced.at(first + j * ROWS, 1, &place);
      if (first + j * ROWS < end) a[j] = x[place];
    }
    for (int j = 0; j < AT_ONCE; j++)
      if (first + j * ROWS < end) total = op(total, value(real(a[j]), op));
  }
}

template <class real, class Op>
__global__ void across(Elements<real> x, Results<real> results, TITAN_PARAMETER(Space<2>) kept, TITAN_PARAMETER(Space<1>) reduced, int64_t strips, Op op) {
  __shared__ Total<Op, real> shared[ROWS][WARP + 1];
  const int64_t columns = kept.dims[kept.rank - 1], pieces = (columns + WARP - 1) / WARP;
  for (int64_t task = blockIdx.x; task < strips * results.parts; task += gridDim.x) {
    const int64_t strip = task % strips, part = task / strips, end = results.begin(reduced.total, part + 1);
    const int64_t column = strip % pieces * WARP + threadIdx.x, i = strip / pieces * columns + column;
    int64_t at[2] = {};
    Total<Op, real> total = IDENTITY<Op, real>;
    if (column < columns) {
      kept.at(i, 2, at);
      const int64_t first = results.begin(reduced.total, part) + threadIdx.y;
      if (x.dtype == DType::bf16) join_column<real>(x.template as<bf16>() + at[0], reduced, first, end, total, op);
      else join_column<real>(x.template as<real>() + at[0], reduced, first, end, total, op);
    }
    __syncthreads();
    shared[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && column < columns) {
      for (int row = 1; row < ROWS; row++) total = op(total, shared[row][threadIdx.x]);
      results.put(i, part, at[1], total);
    }
  }
}

/// A block for each element of y, from its parts.
template <class real, class Op>
__global__ void join_parts(Results<real> results, TITAN_PARAMETER(Space<2>) kept, Op op) {
  for (int64_t i = blockIdx.x; i < kept.total; i += gridDim.x) {
    int64_t at[2];
    kept.at(i, 2, at);
    Total<Op, real> total = IDENTITY<Op, real>;
    for (int64_t part = threadIdx.x; part < results.parts; part += blockDim.x) total = op(total, Total<Op, real>(results.scratch[part * kept.total + i]));
    total = join_block(total, op);
    if (threadIdx.x == 0) results.y[at[1]] = real(total);
  }
}

template <class real, class Op>
void reduce(const Call& call, Op op) {
  const Tensor &x = call[0], &y = call[1], &scratch = call[2];
  Tensor kept_dims[2] = {x, y}, reduced_dims = x;
  for (int d = 0; d < x.rank; d++)
    if (x.dims[d] != 1) (y.strides[d] ? reduced_dims.dims[d] : kept_dims[0].dims[d]) = 1;
  kept_dims[1] = y;
  std::copy_n(kept_dims[0].dims, x.rank, kept_dims[1].dims);
  const Space<2> kept(kept_dims, 2, 0);
  const Space<1> reduced(&reduced_dims, 1, 0);
  if (!kept.total) return;
  Results<real> results{y.as<real>(), scratch.as<double>(), 1, kept.total};
  const auto cut = [&](int64_t blocks, int64_t least) {
    const int64_t room = scratch.dims[0] / int64_t(sizeof(double));
    results.parts = std::max<int64_t>(1, std::min({MOST_BLOCKS / blocks, reduced.total / least, room / kept.total}));
  };
  if (kept.rank && kept.strides[0][kept.rank - 1] == 1 && !(reduced.rank && reduced.strides[0][reduced.rank - 1] == 1)) {
    const int64_t columns = kept.dims[kept.rank - 1], strips = kept.total / columns * ((columns + WARP - 1) / WARP);
    cut(strips, LEAST_ACROSS);
    launch(across<real, Op>, {blocks_for(strips * results.parts, 1), dim3(WARP, ROWS)}, call, Elements<real>(x), results, kept, reduced, strips, op);
  } else {
    Tensor rows = x;  // as they are walked over
    rows.rank = kept.rank + 1;
    std::copy_n(kept.dims, kept.rank, rows.dims), std::copy_n(kept.strides[0], kept.rank, rows.strides);
    const bool dense = reduced.rank == 0 || (reduced.rank == 1 && reduced.strides[0][0] == 1);
    const Lanes lanes({&rows});
    if (reduced.total <= MOST_SHORT) {
      int each = 1;
      while (each < WARP && each * (dense ? lanes.n : 1) < reduced.total) each *= 2;
      return launch(along_short<real, Op>, {blocks_for(kept.total, BLOCK_THREADS / each), BLOCK_THREADS}, call, Elements<real>(x), results.y, kept, reduced, dense, lanes, each, op);
    }
    cut(kept.total, LEAST_ALONG);
    const unsigned threads = reduced.total < 1024 ? WARP : BLOCK_THREADS;
    launch(along<real, Op>, {blocks_for(kept.total * results.parts, 1), threads}, call, Elements<real>(x), results, kept, reduced, dense, lanes, op);
  }
  if (results.parts > 1) launch(join_parts<real, Op>, {blocks_for(kept.total, 1), threads_for(4 * results.parts)}, call, results, kept, op);
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
