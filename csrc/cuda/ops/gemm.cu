// c[B,M,N] = a[B,M,K] b[B,K,N], or added to c, of any strides, in f32 or f64 (csrc/cpu/ops/gemm.cpp). With bf16 = 1, a and b are rounded to bf16 and any
// operand may be stored so, a and b also as float8; the products are summed in f32.
// Compute-bound: a block makes a tile of 64 x 64 from slices of 16 in shared memory, a thread 4 x 4 of it, by plain multiply-adds. This is the way for
// what a library of products does not take; it reaches the rate of f32 at best. Each element is summed along K in order.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

constexpr int TILE = 64, SLICE = 16, EACH = 4, SIDE = TILE / EACH;

template <class real>
struct Matrix {
  Elements<real> elements;
  int64_t batch, row, column;
  Matrix(const Tensor& t) : elements(t), batch(t.dims[0] == 1 ? 0 : t.strides[0]), row(t.strides[1]), column(t.strides[2]) {}
};

template <class real>
__global__ void gemm(Matrix<real> a, Matrix<real> b, Matrix<real> c, int64_t B, int64_t M, int64_t N, int64_t K, bool adds, bool rounds) {
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
        const real x = row + m < M && first + ka < K ? from_a[(row + m) * a.row + (first + ka) * a.column] : real(0);
        const real y = column + n < N && first + kb < K ? from_b[(first + kb) * b.row + (column + n) * b.column] : real(0);
        left[ka][m] = rounds ? real(bf16(float(x))) : x;
        right[kb][n] = rounds ? real(bf16(float(y))) : y;
      }
      __syncthreads();
      for (int k = 0; k < SLICE; k++) {
        real x[EACH], y[EACH];
        for (int i = 0; i < EACH; i++) x[i] = left[k][ty + i * SIDE], y[i] = right[k][tx + i * SIDE];
        for (int i = 0; i < EACH; i++)
          for (int j = 0; j < EACH; j++) sums[i][j] += x[i] * y[j];
      }
    }
    for (int i = 0; i < EACH; i++)
      for (int j = 0; j < EACH; j++) {
        const int64_t m = row + ty + i * SIDE, n = column + tx + j * SIDE, at = m * c.row + n * c.column;
        if (m < M && n < N) to.put(at, adds ? to[at] + sums[i][j] : sums[i][j]);
      }
  }
}

}  // namespace

void run_gemm(const Call& call) {
  const Tensor &a = call[0], &b = call[1], &c = call[2];
  const bool rounds = call.attributes[1].i == 1, adds = call.adds(call.attributes[0].i);
  with_real(c, [&](auto zero) {
    using real = decltype(zero);
    const int64_t B = c.dims[0], M = c.dims[1], N = c.dims[2], K = a.dims[2];
    launch(gemm<real>, {blocks_for(B * ((M + TILE - 1) / TILE) * ((N + TILE - 1) / TILE), 1), SIDE * SIDE}, call, Matrix<real>(a), Matrix<real>(b), Matrix<real>(c), B, M, N, K, adds, rounds);
  });
}

}  // namespace titan::cuda
