// Token embedding and its gradient (csrc/cpu/ops/embedding.cpp).
// embedding is memory-bound: 8 bytes of an f32 element of y. An id outside 0..whole-1 makes its row of y NaN, one of another slice makes it 0.
// The gradient has a block for each ROWS rows of the table and MATCH_COLUMNS of its columns, which looks through all ids for those rows, and then for each
// row that it has found once more, to add its rows of dy in their order, in registers: no sorting, no atomics, the same bits each time, and a bf16 dtable
// is rounded once. A row of dy is read once, and a row of dtable is written where there is something to add, or where it is begun anew; of V rows and N
// ids, ids are read V / ROWS times, and once for each row found, from L2.
#include "../device.h"
#include "../kernels.h"
#include "../matches.h"

namespace titan::cuda {
namespace {

constexpr int64_t ROWS = 16;

template <class real>
__global__ void embedding(const int32_t* ids, int64_t id_stride, Elements<real> table, int64_t table_row, Elements<real> y, int64_t y_row, int64_t N, int64_t V, int64_t D, int64_t start, int64_t whole, Lanes lanes) {
  for (int64_t n = blockIdx.x; n < N; n += gridDim.x) {
    const int64_t id = ids[n * id_stride], row = id - start;
    const bool own = row >= 0 && row < V;
    const real other = id >= 0 && id < whole ? 0 : std::numeric_limits<real>::quiet_NaN();
    const Elements<real> from = table + (own ? row * table_row : 0), to = y + n * y_row;
    for_row(D, lanes, threadIdx.x, blockDim.x, [&](int64_t d, auto width) {
      real a[width.value];
      if (own) from.load(d, a);
      else
        for (int k = 0; k < width.value; k++) a[k] = other;
      to.store(d, a);
    });
  }
}

template <class real>
__global__ void embedding_backward(const int32_t* ids, int64_t id_stride, Elements<real> dy, int64_t dy_row, Elements<real> dtable, int64_t dtable_row, int64_t N, int64_t V, int64_t D, int64_t start, bool adds) {
  const int64_t first = int64_t{blockIdx.y} * MATCH_COLUMNS;
  const auto row = [&](int64_t n) { return ids[n * id_stride] - start; };
  for (int64_t from = int64_t{blockIdx.x} * ROWS; from < V; from += int64_t{gridDim.x} * ROWS) {
    const unsigned found = numbers_found(N, [&](int64_t n) { return row(n) - from; });
    for (int64_t v = from; v < from + ROWS && v < V; v++) {
      const bool any = found >> (v - from) & 1;
      if (!any && adds) continue;
      RowSum<real> sum(dtable + v * dtable_row, first, D, adds);
      if (any) for_each_match(N, [&](int64_t n) { return row(n) == v; }, [&](int64_t n) { sum.add(dy + n * dy_row); });
      sum.store();
    }
  }
}

}  // namespace

void run_embedding(const Call& call) {
  const Tensor &ids = call[0], &table = call[1], &y = call[2];
  with_real(table, [&](auto zero) {
    using real = decltype(zero);
    const int64_t N = ids.dims[0], V = table.dims[0], D = table.dims[1];
    launch(embedding<real>, {blocks_for(N, 1), threads_for(D)}, call, ids.as<int32_t>(), ids.strides[0], Elements<real>(table), table.strides[0], Elements<real>(y), y.strides[0], N, V, D,
           call.attributes[0].i, call.attributes[1].i, Lanes({&table, &y}));
  });
}
void run_embedding_backward(const Call& call) {
  const Tensor &ids = call[0], &dy = call[1], &dtable = call[2];
  with_real(dtable, [&](auto zero) {
    using real = decltype(zero);
    const int64_t N = dy.dims[0], V = dtable.dims[0], D = dtable.dims[1];
    launch(embedding_backward<real>, {dim3(blocks_for(V, ROWS), blocks_for(D, MATCH_COLUMNS)), MATCH_THREADS}, call, ids.as<int32_t>(), ids.strides[0], Elements<real>(dy), dy.strides[0], Elements<real>(dtable),
           dtable.strides[0], N, V, D, call.attributes[1].i, call.adds(call.attributes[0].i));
  });
}

}  // namespace titan::cuda
