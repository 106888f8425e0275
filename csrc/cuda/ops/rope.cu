// Rotary position embedding on adjacent pairs, and the table of its angles (csrc/cpu/ops/rope.cpp has the formulas).
// The table is made once a step, angles in f64. rope is memory-bound: 8 bytes of an f32 element. A block has all heads of a token, for which the table
// stays in L1, and so no thread divides by more than 32 bits. A thread takes two pairs at once where they are aligned, else one.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

struct Frequencies {
  double theta, factor, low, high, original;
};

template <class real>
__global__ void rope_table(const int32_t* positions, int64_t position_stride, real* table, int64_t row, int64_t N, int64_t K, Frequencies by) {
  for_each(N * (K / 2), [&](int64_t i) {
    const int64_t n = i / (K / 2), k = i % (K / 2);
    const double f = std::pow(by.theta, -double(2 * k) / double(K));
    double kept = 1;
    if (by.factor != 1) kept = std::fmin(1., std::fmax(0., (by.original * f / (2 * M_PI) - by.low) / (by.high - by.low)));
    const double angle = double(positions[n * position_stride]) * (kept * f + (1 - kept) * f / by.factor);
    table[n * row + 2 * k] = real(std::cos(angle));
    table[n * row + 2 * k + 1] = real(std::sin(angle));
  });
}

template <class real>
struct Rope {
  Elements<real> x, y, table;
  int64_t x_row, x_head, y_row, y_head, table_row, N, H, K;
  real direction;
};
/// A thread rotates AT_ONCE / 2 neighbouring pairs.
template <class real, int AT_ONCE>
__global__ void rope(Rope<real> c) {
  const int pieces = int(c.K) / AT_ONCE, all = int(c.H) * pieces;
  for (int64_t n = blockIdx.x; n < c.N; n += gridDim.x)
    for (int i = int(threadIdx.x); i < all; i += int(blockDim.x)) {
      const int h = i / pieces, k = i % pieces * AT_ONCE;
      const Elements<real> x = c.x + (n * c.x_row + h * c.x_head + k), y = c.y + (n * c.y_row + h * c.y_head + k), table = c.table + (n * c.table_row + k);
      real a[AT_ONCE], turn[AT_ONCE], out[AT_ONCE];
      if constexpr (AT_ONCE == 4) load(0, x, a, table, turn);
      else a[0] = x[0], a[1] = x[1], turn[0] = table[0], turn[1] = table[1];
      for (int j = 0; j < AT_ONCE; j += 2) {
        const real cos = turn[j], sin = c.direction * turn[j + 1];
        out[j] = a[j] * cos - a[j + 1] * sin, out[j + 1] = a[j] * sin + a[j + 1] * cos;
      }
      if constexpr (AT_ONCE == 4) y.store(0, out);
      else y.put(0, out[0]), y.put(1, out[1]);
    }
}

}  // namespace

void run_rope_table(const Call& call) {
  const Tensor &positions = call[0], &table = call[1];
  const Attribute* const a = call.attributes;
  with_real(table, [&](auto zero) {
    using real = decltype(zero);
    const int64_t N = table.dims[0], K = table.dims[1];
    launch(rope_table<real>, {blocks_for(N * (K / 2), BLOCK_THREADS), BLOCK_THREADS}, call, positions.as<int32_t>(), positions.strides[0], table.as<real>(), table.strides[0], N, K,
           Frequencies{a[0].f, a[1].f, a[2].f, a[3].f, a[4].f});
  });
}
void run_rope(const Call& call) {
  const Tensor &x = call[0], &table = call[1], &y = call[2];
  with_real(table, [&](auto zero) {
    using real = decltype(zero);
    const Rope<real> c{x, y, table, x.strides[0], x.strides[1], y.strides[0], y.strides[1], table.strides[0], x.dims[0], x.dims[1], x.dims[2], real(call.attributes[0].i ? -1 : 1)};
    if (!c.H || !c.K) return;
    launch(c.K % 4 == 0 && Lanes({&x, &y, &table}).aligned ? rope<real, 4> : rope<real, 2>, {blocks_for(c.N, 1), threads_for(c.H * c.K)}, call, c);
  });
}

}  // namespace titan::cuda
