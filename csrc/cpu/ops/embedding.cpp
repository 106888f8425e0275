// Token embedding.   ids[N] i32, table[V,D] -> y[N,D]:  y[n] = table[ids[n]]        and      dy[N,D] -> dtable[V,D] (+)= sum over n with ids[n] = v of dy[n]
// Memory-bound: one row in, one row out. The gradient gives each thread a range of columns of every row, so that no two threads meet
// in one element, and each element sums its tokens in their order: the same bits for any number of threads.
// An id outside 0..V-1 reads nothing: its row of y is NaN (the loss shows it) and its row of dy is left out.
#include <algorithm>
#include <limits>

#include "../check.h"
#include "../kernels.h"
#include "../simd.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

template <class real>
void embedding(const Call& call) {
  const Tensor &ids = call[0], &table = call[1], &y = call[2];
  const int64_t N = ids.dims[0], V = table.dims[0], D = table.dims[1];
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (int64_t n = 0; n < N; n++) {
    const int32_t id = ids.as<int32_t>()[n * ids.strides[0]];
    real* row = y.as<real>() + n * y.strides[0];
    if (id >= 0 && id < V) std::copy_n(table.as<real>() + id * table.strides[0], D, row);
    else std::fill_n(row, D, std::numeric_limits<real>::quiet_NaN());
  }
}

template <class real>
void embedding_backward(const Call& call) {
  const Tensor &ids = call[0], &dy = call[1], &dtable = call[2];
  const int64_t N = ids.dims[0], V = dtable.dims[0], D = dtable.dims[1];
  constexpr int64_t LINE = 64 / sizeof(real);  // columns are handed out by cache lines
  const int64_t lines = (D + LINE - 1) / LINE;
  const bool add = call.adds(call.attributes[0].i);
#pragma omp parallel for num_threads(call.threads) schedule(static)
  for (int64_t part = 0; part < call.threads; part++) {
    const int64_t first = lines * part / call.threads * LINE, count = std::min(D, lines * (part + 1) / call.threads * LINE) - first;
    if (count <= 0) continue;
    real* column = dtable.as<real>() + first;
    if (!add)
      for (int64_t v = 0; v < V; v++) std::fill_n(column + v * dtable.strides[0], count, real(0));
    for (int64_t n = 0; n < N; n++) {
      const int32_t id = ids.as<int32_t>()[n * ids.strides[0]];
      if (id < 0 || id >= V) continue;
      const real* from = dy.as<real>() + n * dy.strides[0] + first;
      real* to = column + id * dtable.strides[0];
      for_lanes<real>(count, [&](int64_t d, int64_t lanes) { store(to + d, load(to + d, lanes) + load(from + d, lanes), lanes); });
    }
  }
}

}  // namespace

void run_embedding(const Call& call) {
  with_real(call[1].dtype, [&](auto zero) { embedding<decltype(zero)>(call); });
}
void run_embedding_backward(const Call& call) {
  with_real(call[1].dtype, [&](auto zero) { embedding_backward<decltype(zero)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_embedding(const Call& call) {
  Check check(call, {"ids", "table", "y"}, 0);
  const DType real = check.real(1);
  const int64_t N = check.dim(0, 0), V = check.dim(1, 0), D = check.dim(1, 1);
  return check.operand(0, DType::i32, {N}).operand(1, real, {V, D}).operand(2, real, {N, D}).rows(1).rows(2).writable(2).error();
}
std::string check_embedding_backward(const Call& call) {
  Check check(call, {"ids", "dy", "dtable"}, 1);
  const DType real = check.real(1);
  const int64_t N = check.dim(0, 0), D = check.dim(1, 1);
  return check.operand(0, DType::i32, {N}).operand(1, real, {N, D}).operand(2, real, {-1, D}).rows(1).rows(2).writable(2).error();
}
}  // namespace titan::cpu
#endif
