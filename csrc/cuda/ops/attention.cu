// Attention forward: o and lse of q, k and v, with the operands and formulas of csrc/cpu/ops/attention.cpp, other_o and other_lse among them.
// One pass over the keys with a running maximum ("flash"): a block has a tile of queries of one head, its output in registers, and takes tile after tile
// of keys through shared memory; tiles that no query sees are skipped. Compute-bound, by plain multiply-adds of f32 or f64. With bf16 = 1 products are
// made on tensor cores: attention_mma.cu.
// Every query is summed in the order of its keys, in tiles that depend on the head size alone. Scratch is not used.
#include "../attention.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

constexpr int TILE_BYTES = 16 << 10;

template <class tiles, class real>
__global__ void attention(Attention<real> c, Heads<real> other_o, Heads<real> other_lse, Heads<real> o, Heads<real> lse) {
  __shared__ typename tiles::Tile q, kv;
  __shared__ typename tiles::Scores powers;
  const int row = tiles::row();
  for (int64_t task = blockIdx.x; task < Query<tiles, real>::num_tasks(c); task += gridDim.x) {
    const Query<tiles, real> query(c, task);
    const int64_t first = query.first, h = query.h, b = query.b, g = query.g, t = query.t;
    const bool is_query = query.exists;
    __syncthreads();
    load_tile<tiles>(q, c, c.q, c.queries, true, b, h, first, real(c.scale * real(LOG2E)));
    real most = real(-1e30), sum = 0, output[tiles::PAIRS][2] = {};
    if (other_o.elements.data && is_query) {
      const real natural = other_lse.at(b, t, h)[0];
      if (natural != -std::numeric_limits<real>::infinity()) {
        most = natural * real(LOG2E), sum = 1;
        const Elements<real> from = other_o.at(b, t, h);
        for (int pair = 0; pair < tiles::PAIRS; pair++)
          if (const int column = tiles::column(pair); column < c.K) output[pair][0] = from[column], output[pair][1] = from[column + 1];
      }
    }
    for (int64_t begin = 0; begin < c.S; begin += tiles::ROWS) {
      bool seen[tiles::SCORES];
      if (!__syncthreads_or(query.sees(c, begin, seen))) continue;  // a barrier, too: the tiles before have been used
      load_tile<tiles>(kv, c, c.k, c.keys, true, b, g, begin, real(1));
      __syncthreads();
      real scores[tiles::SCORES], largest = most;
      for (int i = 0; i < tiles::SCORES; i++) {
        scores[i] = seen[i] ? dot<tiles>(q, row, kv, tiles::other(i), c.K) : -std::numeric_limits<real>::infinity();
        largest = Max()(largest, scores[i]);
      }
      largest = tiles::join_row(largest, Max());
      const real rescale = std::exp2(most - largest);
      most = largest;
      real added = 0;
      for (int i = 0; i < tiles::SCORES; i++) {
        const real power = std::exp2(scores[i] - most);
        added += power;
        if (tiles::other(i) < tiles::ROWS) powers[row][tiles::other(i)] = power;
      }
      sum = sum * rescale + tiles::join_row(added, Sum());
      for (int pair = 0; pair < tiles::PAIRS; pair++) output[pair][0] *= rescale, output[pair][1] *= rescale;
      __syncthreads();
      load_tile<tiles>(kv, c, c.v, c.keys, false, b, g, begin, real(1));
      __syncthreads();
      add_rows<tiles>(output, powers, kv);
    }
    if (!is_query) continue;
    store_row<tiles>(o.at(b, t, h), output, c.K, sum == 0 ? real(0) : 1 / sum, static_cast<const real*>(nullptr));
    if (tiles::lane() == 0) lse.at(b, t, h).put(0, most * real(LN2) + std::log(sum));
  }
}

}  // namespace

void run_attention(const Call& call) {
  if (call.attributes[1].i == 1) return attend_on_tensor_cores(call);
  with_real(call[12], [&](auto zero) {
    using real = decltype(zero);
    const Attention<real> c(call, 3);
    const bool other = call[9].data;
    with_tiles<real, TILE_BYTES>(c.K, [&](auto tiles) {
      using T = decltype(tiles);
      launch(attention<T, real>, {blocks_for(c.B * c.H * ((c.T + T::ROWS - 1) / T::ROWS), 1), T::THREADS}, call, c, Heads<real>(call[9], other), Heads<real>(call[10], other), Heads<real>(call[11]),
             Heads<real>(call[12]));
    });
  });
}

}  // namespace titan::cuda
