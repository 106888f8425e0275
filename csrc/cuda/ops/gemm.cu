// c[B,M,N] = a[B,M,K] b[B,K,N], or added to c, of any strides, in f32 or f64 (csrc/cpu/ops/gemm.cpp). With bf16 = 1, a and b are rounded to bf16 and any
// operand may be stored so, a and b also as float8; the products are summed in f32. This is the way for what cuBLASLt does not take (../products.h).
// Compute-bound. A block makes a tile of 64 x 64 from slices of a and b in shared memory. With bf16 = 1 its four warps multiply slices of 64 on tensor
// cores (../mma.h), 32 x 32 each, 2 FLOP x 64 / (2 + 2) = 32 FLOP for each byte of bf16 that is loaded. Operands that are stored as bf16 in rows or columns
// of words are copied while the slices before are multiplied: two slices, 32 KiB of a block, are under way. What has to be rounded, or lies otherwise,
// goes through registers. 108 registers on sm_90 and 48 KiB: four blocks are on a multiprocessor (sm_80: three; sm_89: two).
// Else a thread makes 4 x 4 of it from slices of 16, by plain multiply-adds: at best the rate of f32. Each element is summed along K in order, by sixteens
// on tensor cores.
#include "../device.h"
#include "../kernels.h"
#include "../mma.h"

namespace titan::cuda {
namespace {

constexpr int TILE = 64, SLICE = 16, EACH = 4, SIDE = TILE / EACH;
constexpr int MMA_THREADS = 4 * WARP, MMA_STAGES = 3, PART = TILE / 2;  // of a warp
using Slice = SharedRows<TILE>;

template <class real>
struct Matrix {
  Elements<real> elements;
  int64_t batch, row, column;
  Matrix(const Tensor& t) : elements(t), batch(t.dims[0] == 1 ? 0 : t.strides[0]), row(t.strides[1]), column(t.strides[2]) {}
};

template <class real>
__global__ void gemm(Matrix<real> a, Matrix<real> b, Matrix<real> c, int64_t B, int64_t M, int64_t N, int64_t K, bool adds) {
  // Neighbouring threads read neighbours in memory: along the dim of stride 1.
  __shared__ real left[SLICE][TILE + 1], right[SLICE][TILE + 1];
  const int64_t tile_rows = (M + TILE - 1) / TILE, tile_columns = (N + TILE - 1) / TILE;
  const int tx = int(threadIdx.x) % SIDE, ty = int(threadIdx.x) / SIDE;
  for (int64_t t = blockIdx.x; t < B * tile_rows * tile_columns; t += gridDim.x) {
    const int64_t batch = t / tile_columns / tile_rows, row = t / tile_columns % tile_rows * TILE, column = t % tile_columns * TILE;
    const Elements<real> from_a = a.elements + batch * a.batch, from_b = b.elements + batch * b.batch, to = c.elements + batch * c.batch;
    real sums[EACH][EACH] = {};
    for (int64_t first = 0; first < K; first += SLICE) {
      __syncthreads();
      for (int i = int(threadIdx.x); i < TILE * SLICE; i += SIDE * SIDE) {
        const int m = a.column == 1 ? i / SLICE : i % TILE, ka = a.column == 1 ? i % SLICE : i / TILE;
        const int n = b.column == 1 ? i % TILE : i / SLICE, kb = b.column == 1 ? i / TILE : i % SLICE;
        left[ka][m] = row + m < M && first + ka < K ? from_a[(row + m) * a.row + (first + ka) * a.column] : real(0);
        right[kb][n] = column + n < N && first + kb < K ? from_b[(first + kb) * b.row + (column + n) * b.column] : real(0);
      }
      __syncthreads();
      for (int k = 0; k < SLICE; k++) {
        real x[EACH], y[EACH];
        TITAN_UNROLL for (int i = 0; i < EACH; i++) x[i] = left[k][ty + i * SIDE], y[i] = right[k][tx + i * SIDE];
        TITAN_UNROLL for (int i = 0; i < EACH; i++)
          TITAN_UNROLL for (int j = 0; j < EACH; j++) sums[i][j] += x[i] * y[j];
      }
    }
    TITAN_UNROLL for (int i = 0; i < EACH; i++)
      TITAN_UNROLL for (int j = 0; j < EACH; j++) {
        const int64_t m = row + ty + i * SIDE, n = column + tx + j * SIDE, at = m * c.row + n * c.column;
        if (m < M && n < N) to.put(at, adds ? to[at] + sums[i][j] : sums[i][j]);
      }
  }
}

/// An operand of tensor cores: what is summed over is its column. `fours`: runs of four neighbours, along whichever dim is contiguous, lie aligned;
/// `copied`: runs of eight do, as bf16.
struct Operand : Matrix<float> {
  bool fours, copied;
  Operand(const Tensor& t, bool transposes) : Matrix(t) {
    if (transposes) {
      const int64_t other = row;
      row = column, column = other;
    }
    const int64_t apart = column == 1 ? row : column;
    const auto runs = [&](int64_t n) { return (row == 1 || column == 1) && size_of(t.dtype) > 1 && reinterpret_cast<uintptr_t>(t.data) % (n * size_of(t.dtype)) == 0 && apart % n == 0 && batch % n == 0; };
    fours = runs(4), copied = t.dtype == DType::bf16 && runs(8);
  }
};

/// A tile's rows of a slice, rounded, under way when this ends, or there, if they are not copied. Shared memory has them as memory does: `by_rows`, else
/// columns as its rows. `rows` and `columns` are how many there are; what lies outside is 0.
template <bool by_rows>
__device__ void start_slice(const Slice& to, const Elements<float>& from, const Operand& matrix, int64_t rows, int64_t columns) {
  constexpr int EIGHTS = TILE * TILE / 8;
  for (int i = int(threadIdx.x); i < EIGHTS; i += MMA_THREADS) {
    // Neighbouring threads have neighbours in memory.
    const int line = i / (TILE / 8), along = i % (TILE / 8) * 8, row = by_rows ? line : along, column = by_rows ? along : line;
    const bool is_whole = row + (by_rows ? 1 : 8) <= rows && column + (by_rows ? 8 : 1) <= columns;
    const int64_t at = row * matrix.row + column * matrix.column;
    if (matrix.copied && is_whole) {
      cp_async16(to.at(line, along), from.as<bf16>() + at, true);
      continue;
    }
    float x[2][4];
    if (matrix.fours && is_whole) {
      from.load(at, x[0]);
      from.load(at + 4, x[1]);
    } else {
      for (int k = 0; k < 8; k++) {
        const int r = by_rows ? row : row + k, c = by_rows ? column + k : column;
        x[k / 4][k % 4] = r < rows && c < columns ? from[r * matrix.row + c * matrix.column] : 0;
      }
    }
    *reinterpret_cast<Pack<uint32_t, 4>*>(to.at(line, along)) = {{pack(x[0][0], x[0][1]), pack(x[0][2], x[0][3]), pack(x[1][0], x[1][1]), pack(x[1][2], x[1][3])}};
  }
}

/// `b` is seen with N as its rows.
template <bool a_by_rows, bool b_by_rows>
__global__ void __launch_bounds__(MMA_THREADS, 4) gemm_bf16(Operand a, Operand b, Matrix<float> c, int64_t B, int64_t M, int64_t N, int64_t K, bool adds) {
  alignas(16) __shared__ bf16 memory[MMA_STAGES * 2 * TILE * TILE];
  const auto left = [&](int stage) { return Slice(memory) + 2 * TILE * stage; };
  const auto right = [&](int stage) { return left(stage) + TILE; };
  const int64_t tile_rows = (M + TILE - 1) / TILE, tile_columns = (N + TILE - 1) / TILE;
  const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, own_row = warp / 2 * PART, own_column = warp % 2 * PART;
  for (int64_t t = blockIdx.x; t < B * tile_rows * tile_columns; t += gridDim.x) {
    const int64_t batch = t / tile_columns / tile_rows, row = t / tile_columns % tile_rows * TILE, column = t % tile_columns * TILE;
    const auto start = [&](int stage, int64_t first) {
      if (first < K) {
        start_slice<a_by_rows>(left(stage), a.elements + (batch * a.batch + row * a.row + first * a.column), a, M - row, K - first);
        start_slice<b_by_rows>(right(stage), b.elements + (batch * b.batch + column * b.row + first * b.column), b, N - column, K - first);
      }
      cp_async_commit();
    };
    Sums sums[PART / 16][PART / 8] = {};
    __syncthreads();
    for (int stage = 0; stage < MMA_STAGES - 1; stage++) start(stage, stage * TILE);
    int stage = 0;
    for (int64_t first = 0; first < K; first += TILE, stage = (stage + 1) % MMA_STAGES) {
      cp_async_wait<MMA_STAGES - 2>();
      __syncthreads();  // this slice is there, and the one before has been used
      start((stage + MMA_STAGES - 1) % MMA_STAGES, first + (MMA_STAGES - 1) * TILE);
      for (int k = 0; k < TILE; k += 16) {
        Fragment x[PART / 16], y;
        TITAN_UNROLL for (int i = 0; i < PART / 16; i++) {
          if (a_by_rows) left(stage).load_a(x[i], own_row + 16 * i, k);
          else left(stage).load_a_of_columns(x[i], own_row + 16 * i, k);
        }
        TITAN_UNROLL for (int j = 0; j < PART / 16; j++) {
          if (b_by_rows) right(stage).load_b_of_rows(y, own_column + 16 * j, k);
          else right(stage).load_b(y, k, own_column + 16 * j);
          TITAN_UNROLL for (int i = 0; i < PART / 16; i++) {
            multiply_add(sums[i][2 * j], x[i], y[0], y[1]);
            multiply_add(sums[i][2 * j + 1], x[i], y[2], y[3]);
          }
        }
      }
    }
    const Elements<float> to = c.elements + batch * c.batch;
    TITAN_UNROLL for (int i = 0; i < PART / 16; i++)
      TITAN_UNROLL for (int j = 0; j < PART / 8; j++)
        TITAN_UNROLL for (int e = 0; e < 4; e++) {
          const int64_t m = row + own_row + 16 * i + lane / 4 + e / 2 * 8, n = column + own_column + 8 * j + lane % 4 * 2 + e % 2, at = m * c.row + n * c.column;
          if (m < M && n < N) to.put(at, adds ? to[at] + sums[i][j][e] : sums[i][j][e]);
        }
  }
}

}  // namespace

void run_gemm(const Call& call) {
  const Tensor &a = call[0], &b = call[1], &c = call[2];
  const bool adds = call.adds(call.attributes[0].i);
  const int64_t B = c.dims[0], M = c.dims[1], N = c.dims[2], K = a.dims[2];
  const unsigned blocks = blocks_for(B * ((M + TILE - 1) / TILE) * ((N + TILE - 1) / TILE), 1);
  if (call.attributes[1].i == 1) {
    const Operand left(a, false), right(b, true);
    const auto with = [&](auto kernel) { launch(kernel, {blocks, MMA_THREADS, 0, "run_gemm"}, call, left, right, Matrix<float>(c), B, M, N, K, adds); };
    if (left.column == 1) return right.column == 1 ? with(gemm_bf16<true, true>) : with(gemm_bf16<true, false>);
    return right.column == 1 ? with(gemm_bf16<false, true>) : with(gemm_bf16<false, false>);
  }
  with_real(c, [&](auto zero) {
    using real = decltype(zero);
    launch(gemm<real>, {blocks, SIDE * SIDE}, call, Matrix<real>(a), Matrix<real>(b), Matrix<real>(c), B, M, N, K, adds);
  });
}

}  // namespace titan::cuda
