// Running sums along one dim: y[i] = x[0] + ... + x[i], or without x[i] (exclusive); with reverse from the end on. x, y of one shape, any rank and
// strides; y may be x. Integers wrap around. A warp for each line along the dim: it sums WARP elements at a time by shuffles, reals in f64.
// Memory-bound: 8 bytes of a 4-byte element.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

template <class Element, class Total>
__global__ void cumsum(const Element* x, Element* y, Space<2> lines, int64_t n, int64_t x_step, int64_t y_step, bool exclusive) {
  const int lane = int(threadIdx.x);
  for (int64_t line = blockIdx.x; line < lines.total; line += gridDim.x) {
    int64_t at[2];
    lines.at(line, 2, at);
    Total before = 0;
    for (int64_t first = 0; first < n; first += WARP) {
      const int64_t i = first + lane;
      const Total own = i < n ? Total(x[at[0] + i * x_step]) : Total(0);
      Total sum = own;
      for (int by = 1; by < WARP; by *= 2) {
        const Total other = __shfl_up_sync(~0u, sum, unsigned(by));
        if (lane >= by) sum += other;
      }
      const Total left = __shfl_up_sync(~0u, sum, 1);
      if (i < n) y[at[1] + i * y_step] = Element(exclusive ? (lane ? before + left : before) : before + sum);
      before += __shfl_sync(~0u, sum, WARP - 1);
    }
  }
}

template <class Element, class Total>
void sum_lines(const Call& call) {
  const Tensor &x = call[0], &y = call[1];
  const int dim = int(call.attributes[0].i);
  const bool reverse = call.attributes[2].i;
  const int64_t n = x.dims[dim], sign = reverse ? -1 : 1, begin = reverse ? n - 1 : 0;
  Tensor lines[2] = {x, y};
  lines[0].dims[dim] = lines[1].dims[dim] = 1;
  const Space<2> space(lines, 2, 1);
  if (!n) return;
  launch(cumsum<Element, Total>, {blocks_for(space.total, 1), WARP}, call, x.as<Element>() + begin * x.strides[dim], y.as<Element>() + begin * y.strides[dim], space, n, sign * x.strides[dim],
         sign * y.strides[dim], call.attributes[1].i != 0);
}

}  // namespace

void run_cumsum(const Call& call) {
  if (call[0].dtype == DType::i32) sum_lines<int32_t, uint32_t>(call);
  else if (call[0].dtype == DType::f64) sum_lines<double, double>(call);
  else sum_lines<float, double>(call);
}

}  // namespace titan::cuda
