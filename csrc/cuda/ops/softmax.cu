// Softmax over rows: y[n,d] = exp(x[n,d] - max_d x[n]) / sum_d exp(x[n,d] - max_d x[n]). x, y [N,D]; y may be x. A block for each row.
// Memory-bound: 8 bytes of an f32 element, where the row's second and third reading come from L1 or L2.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

template <class real>
__global__ void softmax(Elements<real> from, Elements<real> to, int64_t x_row, int64_t y_row, int64_t N, int64_t D, Lanes lanes) {
  for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const Elements<real> x = from + n * x_row, y = to + n * y_row;
    real peak = -std::numeric_limits<real>::infinity();
    for_row(D, lanes, threadIdx.x, blockDim.x, [&](int64_t d, auto width) {
      real a[width.value];
      x.load(d, a);
      for (int k = 0; k < width.value; k++) peak = peak < a[k] ? a[k] : peak;
    });
    peak = join_block(peak, Max());
    real sum = 0;
    for_row(D, lanes, threadIdx.x, blockDim.x, [&](int64_t d, auto width) {
      real a[width.value];
      x.load(d, a);
      for (int k = 0; k < width.value; k++) sum += a[k] = std::exp(a[k] - peak);
      y.store(d, a);
    });
    const real scale = real(1 / join_block(double(sum), Sum()));
    for_row(D, lanes, threadIdx.x, blockDim.x, [&](int64_t d, auto width) {
      real a[width.value];
      y.load(d, a);
      for (int k = 0; k < width.value; k++) a[k] *= scale;
      y.store(d, a);
    });
  }
}

}  // namespace

void run_softmax(const Call& call) {
  const Tensor &x = call[0], &y = call[1];
  with_real(x, [&](auto zero) {
    using real = decltype(zero);
    launch(softmax<real>, {blocks_for(x.dims[0], 1), threads_for(x.dims[1])}, call, Elements<real>(x), Elements<real>(y), x.strides[0], y.strides[0], x.dims[0], x.dims[1], Lanes({&x, &y}));
  });
}

}  // namespace titan::cuda
