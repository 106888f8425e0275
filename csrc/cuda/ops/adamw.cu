// AdamW over n parameters at once (csrc/cpu/ops/adamw.cpp has the formulas), with lr, step and the gradient's scale as scalars in device memory.
// Memory-bound: 28 bytes of an f32 parameter. One launch for MOST parameters, whose table is a parameter of the launch; a block takes PIECE elements of
// one after another, so that what all of them need, powers of the betas, is made for many. When scale is not finite (a diverged norm), p, m and v keep their values. Each p, m, v and g may be bf16.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

constexpr int64_t PIECE = 4096, MOST_BLOCKS = 8192;
constexpr int MOST = 384, ROLES = 7;  // p, m, v, g, new p, new m, new v

struct Table {
  void* data[MOST][ROLES];
  int64_t sizes[MOST];
  uint32_t first[MOST];  // number of a parameter's first piece
  uint8_t bf16_roles[MOST];
  int parameters;
  int64_t pieces;
  double beta1, beta2, log_beta1, log_beta2, eps, weight_decay;
};
template <class real>
struct Step {
  real scale, decay, rate, root;  // root: 1 / sqrt(1 - beta2^step)
};

template <class real>
__global__ void __launch_bounds__(BLOCK_THREADS, 3) adamw(TITAN_PARAMETER(Table) table, const real* lr, const real* step, const real* scale) {
  __shared__ Step<real> shared;
  if (threadIdx.x == 0) {
    const double rate = double(*lr), number = double(*step);
    shared = {*scale, real(1 - rate * table.weight_decay), real(-rate / std::expm1(number * table.log_beta1)), real(1 / std::sqrt(-std::expm1(number * table.log_beta2)))};
  }
  __syncthreads();
  const Step<real> s = shared;
  const real beta1 = real(table.beta1), beta2 = real(table.beta2), eps = real(table.eps);
  for (int64_t piece = blockIdx.x; piece < table.pieces; piece += gridDim.x) {
    int low = 0, high = table.parameters - 1;  // the last parameter that begins at this piece or before
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (table.first[middle] <= piece) low = middle;
      else high = middle - 1;
    }
    const int64_t begin = (piece - table.first[low]) * PIECE, left = table.sizes[low] - begin, size = left < PIECE ? left : PIECE;
    Lanes lanes(8, true);
    const auto role = [&](int k) {
      const DType dtype = sizeof(real) == 8 ? DType::f64 : table.bf16_roles[low] >> k & 1 ? DType::bf16 : DType::f32;
      const Elements<real> elements = Elements<real>(table.data[low][k], dtype) + begin;
      if (dtype != DType::bf16) lanes.n = 4;
      lanes.aligned &= reinterpret_cast<uintptr_t>(elements.data) % WORD == 0;
      return elements;
    };
    const Elements<real> p = role(0), m = role(1), v = role(2), g = role(3), new_p = role(4), new_m = role(5), new_v = role(6);
    for_row(size, lanes, threadIdx.x, blockDim.x, [&](int64_t i, auto width) {
      real weights[width.value], means[width.value], squares[width.value], gradients[width.value];
      load(i, p, weights, m, means, v, squares, g, gradients);
      if (std::isfinite(s.scale))
        for (int k = 0; k < width.value; k++) {
          const real gradient = gradients[k] * s.scale;
          means[k] = means[k] * beta1 + gradient * (1 - beta1);
          squares[k] = squares[k] * beta2 + gradient * gradient * (1 - beta2);
          weights[k] = weights[k] * s.decay - s.rate * means[k] / (std::sqrt(squares[k]) * s.root + eps);
        }
      new_p.store(i, weights), new_m.store(i, means), new_v.store(i, squares);
    });
  }
}

}  // namespace

void run_adamw(const Call& call) {
  const int n = int(call.attributes[0].i);
  with_real(call[4 * n], [&](auto zero) {
    using real = decltype(zero);
    for (int from = 0; from < n; from += MOST) {
      Table table = {};
      table.beta1 = call.attributes[1].f, table.beta2 = call.attributes[2].f, table.eps = call.attributes[3].f, table.weight_decay = call.attributes[4].f;
      table.log_beta1 = std::log(table.beta1), table.log_beta2 = std::log(table.beta2);
      for (int i = from; i < std::min(from + MOST, n); i++) {
        const int64_t size = count(call[i]);
        if (!size) continue;
        const int k = table.parameters++;
        for (int r = 0; r < ROLES; r++) {
          const Tensor& t = call[r * n + i + (r < 4 ? 0 : 3)];
          table.data[k][r] = t.data;
          table.bf16_roles[k] |= uint8_t((t.dtype == DType::bf16) << r);
        }
        table.sizes[k] = size, table.first[k] = uint32_t(table.pieces);
        table.pieces += (size + PIECE - 1) / PIECE;
      }
      launch(adamw<real>, {blocks_for(table.pieces, 1, MOST_BLOCKS), BLOCK_THREADS}, call, table, call[4 * n].as<real>(), call[4 * n + 1].as<real>(), call[4 * n + 2].as<real>());
    }
  });
}

}  // namespace titan::cuda
