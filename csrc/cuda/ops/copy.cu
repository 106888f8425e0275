// copy: y = x in another layout. accumulate: y (+)= x, either may be bf16. Operands are viewed with the same dims.
// Memory-bound: a copy moves twice its element's bytes, a sum three times. A run that is dense in both goes in words of 16 bytes;
// where the two are contiguous along different dims, a copy goes through a tile of shared memory, so that both sides are read and written by whole lines.
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

constexpr int TILE = 32, TILE_ROWS = 8;

template <class Word>
__global__ void copy_words(const Word* x, Word* y, int64_t words) {
  for_each(words, [&](int64_t i) { y[i] = x[i]; });
}
template <class Word>
__global__ void copy_strided(const Word* x, Word* y, Space<2> space) {
  for_each(space.total, [&](int64_t i) {
    int64_t at[2];
    space.at(i, 2, at);
    y[at[1]] = x[at[0]];
  });
}
/// Tiles of the last dim (along which y is contiguous) and dim `across` (along which x is), of all places of the other dims.
template <class Word>
__global__ void copy_transposed(const Word* x, Word* y, Space<2> space, int across, int64_t tiles) {
  __shared__ Word tile[TILE][TILE + 1];
  const int last = space.rank - 1;
  const int64_t rows = space.dims[across], columns = space.dims[last], tile_columns = (columns + TILE - 1) / TILE, tile_rows = (rows + TILE - 1) / TILE;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t column = t % tile_columns * TILE, row = t / tile_columns % tile_rows * TILE;
    int64_t rest = t / tile_columns / tile_rows, from = 0, to = 0;
    for (int d = last - 1; d >= 0; d--) {
      if (d == across) continue;
      from += rest % space.dims[d] * space.strides[0][d], to += rest % space.dims[d] * space.strides[1][d];
      rest /= space.dims[d];
    }
    __syncthreads();
    for (int k = threadIdx.y; k < TILE; k += TILE_ROWS)
      if (column + k < columns && row + threadIdx.x < rows) tile[k][threadIdx.x] = x[from + (row + threadIdx.x) * space.strides[0][across] + (column + k) * space.strides[0][last]];
    __syncthreads();
    for (int k = threadIdx.y; k < TILE; k += TILE_ROWS)
      if (row + k < rows && column + threadIdx.x < columns) y[to + (row + k) * space.strides[1][across] + (column + threadIdx.x) * space.strides[1][last]] = tile[threadIdx.x][k];
  }
}

template <class Word>
void copy(const Call& call) {
  const Tensor &x = call[0], &y = call[1];
  const Space<2> space(call.operands, 2, 1);
  if (!space.total) return;
  if (space.rank == 0 || (space.rank == 1 && space.strides[0][0] == 1 && space.strides[1][0] == 1)) {
    using Large = Pack<uint32_t, 4>;
    const int64_t bytes = space.total * int64_t(sizeof(Word));
    if ((reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(y.data) | uintptr_t(bytes)) % sizeof(Large) == 0)
      return launch(copy_words<Large>, {blocks_for(bytes / 16, BLOCK_THREADS), BLOCK_THREADS}, call, x.as<Large>(), y.as<Large>(), bytes / 16);
    return launch(copy_words<Word>, {blocks_for(space.total, BLOCK_THREADS), BLOCK_THREADS}, call, x.as<Word>(), y.as<Word>(), space.total);
  }
  const int last = space.rank - 1;
  for (int across = 0; across < last; across++) {
    if (space.strides[0][across] != 1 || space.strides[0][last] == 1 || space.dims[across] < 8 || space.dims[last] < 8) continue;
    const int64_t rows = space.dims[across], columns = space.dims[last], tiles = space.total / rows / columns * ((rows + TILE - 1) / TILE) * ((columns + TILE - 1) / TILE);
    return launch(copy_transposed<Word>, {blocks_for(tiles, 1), dim3(TILE, TILE_ROWS)}, call, x.as<Word>(), y.as<Word>(), space, across, tiles);
  }
  launch(copy_strided<Word>, {blocks_for(space.total, BLOCK_THREADS), BLOCK_THREADS}, call, x.as<Word>(), y.as<Word>(), space);
}
void copy_any(const Call& call) {
  switch (size_of(call[1].dtype)) {
    case 1: return copy<uint8_t>(call);
    case 2: return copy<uint16_t>(call);
    case 4: return copy<uint32_t>(call);
    default: return copy<uint64_t>(call);
  }
}

template <class real>
__global__ void add_dense(Elements<real> x, Elements<real> y, int64_t total, Lanes lanes, bool adds) {
  for_row(total, lanes, int64_t{blockIdx.x} * blockDim.x + threadIdx.x, int64_t{gridDim.x} * blockDim.x, [&](int64_t i, auto width) {
    real a[width.value], b[width.value] = {};
    if (adds) load(i, x, a, y, b);
    else x.load(i, a);
    for (int k = 0; k < width.value; k++) b[k] = adds ? b[k] + a[k] : a[k];
    y.store(i, b);
  });
}
template <class real>
__global__ void add_strided(Elements<real> x, Elements<real> y, Space<2> space, bool adds) {
  for_each(space.total, [&](int64_t i) {
    int64_t at[2];
    space.at(i, 2, at);
    y.put(at[1], adds ? y[at[1]] + x[at[0]] : x[at[0]]);
  });
}

}  // namespace

void run_copy(const Call& call) { copy_any(call); }

void run_accumulate(const Call& call) {
  const Tensor &x = call[0], &y = call[1];
  const bool adds = call.adds(call.attributes[0].i);
  if (!adds && x.dtype == y.dtype) return copy_any(call);
  with_real(y, [&](auto zero) {
    using real = decltype(zero);
    const Space<2> space(call.operands, 2, 1);
    const bool dense = space.rank == 0 || (space.rank == 1 && space.strides[0][0] == 1 && space.strides[1][0] == 1);
    Tensor runs[2] = {x, y};
    runs[0].rank = runs[1].rank = 0;  // one row each, if they are dense
    const Lanes lanes({&runs[0], &runs[1]});
    if (dense) launch(add_dense<real>, {blocks_for(space.total, BLOCK_THREADS * lanes.n), BLOCK_THREADS}, call, Elements<real>(x), Elements<real>(y), space.total, lanes, adds);
    else launch(add_strided<real>, {blocks_for(space.total, BLOCK_THREADS), BLOCK_THREADS}, call, Elements<real>(x), Elements<real>(y), space, adds);
  });
}

}  // namespace titan::cuda
