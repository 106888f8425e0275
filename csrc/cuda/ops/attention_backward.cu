// Attention backward: dq, dk and dv, with the operands and formulas of csrc/cpu/ops/attention_backward.cpp.
// Two kernels, each of which makes the probabilities again from the scores: one has a block for a tile of queries and sums dq over its keys, the other
// one for a tile of keys and sums dk and dv over the queries of all heads that share them. So nothing is added to memory by two blocks: sums are in
// registers, in an order that depends on the head size alone. Seven products of a visible pair instead of five. Compute-bound, by plain multiply-adds.
// Scratch is not used. With bf16 = 1 products are made on tensor cores: attention_backward_mma.cu.
#include "../attention.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

constexpr int TILE_BYTES = 8 << 10;

template <class real>
struct Outputs {
  Heads<real> o, lse, grad, dq, dk, dv;
};

/// delta = do . o of a query, in all threads of its row.
template <class tiles, class real>
__device__ real delta_of(const Attention<real>& c, const Outputs<real>& out, int64_t b, int64_t t, int64_t h) {
  real sum = 0;
  if (t < c.T) {
    const Elements<real> o = out.o.at(b, t, h), grad = out.grad.at(b, t, h);
    for (int pair = 0; pair < tiles::PAIRS; pair++)
      if (const int column = tiles::column(pair); column < c.K) sum += grad[column] * o[column] + grad[column + 1] * o[column + 1];
  }
  return tiles::join_row(sum, Sum());
}

template <class tiles, class real>
__global__ void query_gradients(Attention<real> c, Outputs<real> out) {
  __shared__ typename tiles::Tile q, grad, k, v;
  __shared__ typename tiles::Scores ds;
  const int row = tiles::row();
  for (int64_t task = blockIdx.x; task < Query<tiles, real>::num_tasks(c); task += gridDim.x) {
    const Query<tiles, real> query(c, task);
    const int64_t first = query.first, h = query.h, b = query.b, g = query.g, t = query.t;
    const bool is_query = query.exists;
    __syncthreads();
    load_tile<tiles>(q, c, c.q, c.queries, true, b, h, first, real(c.scale * real(LOG2E)));
    load_tile<tiles>(grad, c, out.grad, c.queries, false, b, h, first, real(1));
    const real lse = is_query ? out.lse.at(b, t, h)[0] * real(LOG2E) : 0, delta = delta_of<tiles>(c, out, b, t, h);
    real dq[tiles::PAIRS][2] = {};
    for (int64_t begin = 0; begin < c.S; begin += tiles::ROWS) {
      bool seen[tiles::SCORES];
      if (!__syncthreads_or(query.sees(c, begin, seen))) continue;
      load_tile<tiles>(k, c, c.k, c.keys, true, b, g, begin, real(1));
      load_tile<tiles>(v, c, c.v, c.keys, false, b, g, begin, real(1));
      __syncthreads();
      for (int i = 0; i < tiles::SCORES; i++) {
        if (tiles::other(i) >= tiles::ROWS) continue;
        const real p = seen[i] ? std::exp2(dot<tiles>(q, row, k, tiles::other(i), c.K) - lse) : 0;
        ds[row][tiles::other(i)] = seen[i] ? p * (dot<tiles>(grad, row, v, tiles::other(i), c.K) - delta) : real(0);
      }
      __syncthreads();
      add_rows<tiles>(dq, ds, k);
    }
    if (is_query) store_row<tiles>(out.dq.at(b, t, h), dq, c.K, c.scale, c.queries.angles(b, t));
  }
}

template <class tiles, class real>
__global__ void key_gradients(Attention<real> c, Outputs<real> out) {
  __shared__ typename tiles::Tile q, grad, k, v;
  __shared__ typename tiles::Scores p, ds;
  __shared__ real lses[tiles::ROWS], deltas[tiles::ROWS];
  const int row = tiles::row();
  const int64_t key_tiles = (c.S + tiles::ROWS - 1) / tiles::ROWS, heads = c.H / c.G;
  for (int64_t task = blockIdx.x; task < c.B * c.G * key_tiles; task += gridDim.x) {
    const int64_t first = task % key_tiles * tiles::ROWS, g = task / key_tiles % c.G, b = task / key_tiles / c.G, s = first + row;
    const bool is_key = s < c.S;
    const int32_t position = is_key ? c.keys.position(b, s) : 0, document = is_key ? c.keys.document(b, s) : 0;
    __syncthreads();
    load_tile<tiles>(k, c, c.k, c.keys, true, b, g, first, real(1));
    load_tile<tiles>(v, c, c.v, c.keys, false, b, g, first, real(1));
    real dk[tiles::PAIRS][2] = {}, dv[tiles::PAIRS][2] = {};
    for (int64_t h = g * heads; h < (g + 1) * heads; h++)
      for (int64_t begin = 0; begin < c.T; begin += tiles::ROWS) {
        bool seen[tiles::SCORES], any = false;
        for (int i = 0; i < tiles::SCORES; i++) {
          const int64_t t = begin + tiles::other(i);
          seen[i] = is_key && tiles::other(i) < tiles::ROWS && t < c.T && position <= c.queries.position(b, t) && document == c.queries.document(b, t);
          any |= seen[i];
        }
        if (!__syncthreads_or(any)) continue;
        load_tile<tiles>(q, c, c.q, c.queries, true, b, h, begin, real(c.scale * real(LOG2E)));
        load_tile<tiles>(grad, c, out.grad, c.queries, false, b, h, begin, real(1));
        const real delta = delta_of<tiles>(c, out, b, begin + row, h);
        if (tiles::lane() == 0) deltas[row] = delta, lses[row] = begin + row < c.T ? out.lse.at(b, begin + row, h)[0] * real(LOG2E) : 0;
        __syncthreads();
        for (int i = 0; i < tiles::SCORES; i++) {
          const int other = tiles::other(i);
          if (other >= tiles::ROWS) continue;
          const real power = seen[i] ? std::exp2(dot<tiles>(q, other, k, row, c.K) - lses[other]) : 0;
          p[row][other] = power;
          ds[row][other] = seen[i] ? power * (dot<tiles>(grad, other, v, row, c.K) - deltas[other]) : real(0);
        }
        __syncthreads();
        add_rows<tiles>(dv, p, grad);
        add_rows<tiles>(dk, ds, q);
      }
    if (!is_key) continue;
    store_row<tiles>(out.dk.at(b, s, g), dk, c.K, real(LN2), c.keys.angles(b, s));  // q carries scale log2(e)
    store_row<tiles>(out.dv.at(b, s, g), dv, c.K, real(1), static_cast<const real*>(nullptr));
  }
}

}  // namespace

void run_attention_backward(const Call& call) {
  if (call.attributes[1].i == 1) return attend_backward_on_tensor_cores(call);
  with_real(call[4], [&](auto zero) {
    using real = decltype(zero);
    const Attention<real> c(call, 6);
    const Outputs<real> out{call[3], call[4], call[5], call[12], call[13], call[14]};
    with_tiles<real, TILE_BYTES>(c.K, [&](auto tiles) {
      using T = decltype(tiles);
      launch(query_gradients<T, real>, {blocks_for(c.B * c.H * ((c.T + T::ROWS - 1) / T::ROWS), 1), T::THREADS}, call, c, out);
      launch(key_gradients<T, real>, {blocks_for(c.B * c.G * ((c.S + T::ROWS - 1) / T::ROWS), 1), T::THREADS}, call, c, out);
    });
  });
}

}  // namespace titan::cuda
