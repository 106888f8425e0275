// The K largest elements of each row, largest first: x[N,D] -> values[N,K], ids[N,K] i32. Of equal elements the one with the lower index comes first; NaN
// counts as larger than all. A warp for each row looks K times for the largest that comes behind the one before: a row is read once from memory (4 bytes
// of an f32 element) and K times from L1.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

template <class real>
struct Candidate {
  real value;
  int32_t id;  // -1: none
  /// Does this come before the other in the result?
  __device__ bool before(const Candidate& other) const {
    if (other.id < 0 || id < 0) return id >= 0;
    const bool nan = value != value, other_nan = other.value != other.value;
    if (nan != other_nan) return nan;
    return value > other.value || ((nan || value == other.value) && id < other.id);
  }
};

template <class real>
__global__ void top_k(const real* x, int64_t x_row, real* values, int64_t values_row, int32_t* ids, int64_t ids_row, int64_t N, int64_t D, int64_t K) {
  for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    Candidate<real> last{0, -1};
    for (int64_t k = 0; k < K; k++) {
      Candidate<real> best{0, -1};
      for (int64_t d = threadIdx.x; d < D; d += WARP) {
        const Candidate<real> next{x[n * x_row + d], int32_t(d)};
        if ((k == 0 || last.before(next)) && next.before(best)) best = next;
      }
      for (int with = WARP / 2; with; with /= 2) {
        const Candidate<real> other{__shfl_xor_sync(~0u, best.value, with), __shfl_xor_sync(~0u, best.id, with)};
        if (other.before(best)) best = other;
      }
      if (threadIdx.x == 0) values[n * values_row + k] = best.value, ids[n * ids_row + k] = best.id;
      last = best;
    }
  }
}

}  // namespace

void run_top_k(const Call& call) {
  const Tensor &x = call[0], &values = call[1], &ids = call[2];
  with_real(x, [&](auto zero) {
    using real = decltype(zero);
    launch(top_k<real>, {blocks_for(x.dims[0], 1), WARP}, call, x.as<real>(), x.strides[0], values.as<real>(), values.strides[0], ids.as<int32_t>(), ids.strides[0], x.dims[0], x.dims[1], values.dims[1]);
  });
}

}  // namespace titan::cuda
