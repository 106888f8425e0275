// Rotary position embedding on adjacent pairs, and the table of its angles (csrc/cpu/ops/rope.cpp has the formulas).
// The table is made once a step, angles in f64. rope is memory-bound: 8 bytes of an f32 element, as the table stays in L2 for all heads.
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
  Elements<real> x, y;
  const real* table;
  int64_t x_row, x_head, y_row, y_head, table_row, N, H, K;
  real direction;
};
template <class real>
__global__ void rope(Rope<real> c) {
  const int64_t pairs = c.K / 2;
  for_each(c.N * c.H * pairs, [&](int64_t i) {
    const int64_t k = i % pairs * 2, h = i / pairs % c.H, n = i / pairs / c.H, from = n * c.x_row + h * c.x_head + k, to = n * c.y_row + h * c.y_head + k;
    const real cos = c.table[n * c.table_row + k], sin = c.direction * c.table[n * c.table_row + k + 1], a = c.x[from], b = c.x[from + 1];
    c.y.put(to, a * cos - b * sin);
    c.y.put(to + 1, a * sin + b * cos);
  });
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
    const Rope<real> c{x, y, table.as<real>(), x.strides[0], x.strides[1], y.strides[0], y.strides[1], table.strides[0], x.dims[0], x.dims[1], x.dims[2], real(call.attributes[0].i ? -1 : 1)};
    launch(rope<real>, {blocks_for(c.N * c.H * (c.K / 2), BLOCK_THREADS), BLOCK_THREADS}, call, c);
  });
}

}  // namespace titan::cuda
