// y = sum over all elements of all x* of x^2: the square of the global gradient norm. Each x may be bf16.
// Memory-bound: an element once. One launch for MOST operands: the elements of each are cut into pieces, a block for each; its sum goes to an f64 in
// scratch, and one block adds those in an order that depends on their number alone.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

constexpr int64_t PIECE = 4096;  // as scratch is asked for
constexpr int MOST = 1024;

struct Table {
  void* data[MOST];
  int64_t sizes[MOST];
  uint32_t first[MOST];  // number of an operand's first piece
  uint8_t dtypes[MOST];
  int operands;
};

template <class real>
__global__ void sum_pieces(TITAN_PARAMETER(Table) table, double* partials) {
  int low = 0, high = table.operands - 1;  // the last operand that begins at this block or before
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (table.first[middle] <= blockIdx.x) low = middle;
    else high = middle - 1;
  }
  const Elements<real> all(table.data[low], DType(table.dtypes[low]));
  const int64_t begin = (blockIdx.x - int64_t{table.first[low]}) * PIECE, left = table.sizes[low] - begin, size = left < PIECE ? left : PIECE;
  const Elements<real> x = all + begin;
  const Lanes lanes(x.dtype == DType::bf16 ? 8 : 4, reinterpret_cast<uintptr_t>(x.data) % WORD == 0);
  real sum = 0;
  for_row(size, lanes, threadIdx.x, blockDim.x, [&](int64_t d, auto width) {
    real a[width.value];
    x.load(d, a);
    for (int k = 0; k < width.value; k++) sum += a[k] * a[k];
  });
  const double total = join_block(double(sum), Sum());
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}
template <class real>
__global__ void sum_partials(const double* partials, int64_t n, real* y) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += partials[i];
  sum = join_block(sum, Sum());
  if (threadIdx.x == 0) *y = real(sum);
}

}  // namespace

void run_sum_squares(const Call& call) {
  const int operands = call.num_operands - 2;
  double* const partials = call[operands + 1].as<double>();
  with_real(call[operands], [&](auto zero) {
    using real = decltype(zero);
    int64_t pieces = 0;
    for (int from = 0; from < operands; from += MOST) {
      Table table = {};
      uint32_t blocks = 0;
      for (int i = from; i < std::min(from + MOST, operands); i++) {
        const int64_t size = count(call[i]);
        if (!size) continue;
        const int k = table.operands++;
        table.data[k] = call[i].data, table.sizes[k] = size, table.first[k] = blocks, table.dtypes[k] = uint8_t(call[i].dtype);
        blocks += uint32_t((size + PIECE - 1) / PIECE);
      }
      launch(sum_pieces<real>, {blocks, BLOCK_THREADS}, call, table, partials + pieces);
      pieces += blocks;
    }
    launch(sum_partials<real>, {1, 1024}, call, partials, pieces, call[operands].as<real>());
  });
}

}  // namespace titan::cuda
