// Attention backward with products of bf16 (the attribute bf16 is 1), on tensor cores; operands and formulas are those of attention_backward.cu, and so
// are the two kernels: one sums dq of a tile of queries over their keys, the other dk and dv of a tile of keys over the queries of all heads that share
// them. Tiles are of 128 rows by 32 or 64 others; for heads of more than 128 numbers of 64 by 32, and dk and dv are made by a launch of their own each,
// as sums of both do not fit in registers. Products of a visible pair: 3 for dq, 4 for dk and dv (5 in two launches).
// Rounded are scale log2(e) rope(q), rope(k), v, do, and p and ds; sums, lse and delta are f32.
// Compute-bound: 14 K operations of a visible pair, 768 K and 1024 K of them for each key's k and v and each query's q, do and o that are loaded
// (4 K and 6 K bytes stored as bf16). Nothing is added to memory by two blocks: sums have an order that depends on the head size alone.
// Registers on sm_90 for heads of up to 64, 128 and 256 numbers: dq 168, 176, 240, dk and dv 211, 255, 248 and 246; shared memory 54, 85, 99 KiB. So a
// multiprocessor has 8 of 64 warps at a time: one block, or two of the 4 warps that heads of more than 128 numbers have (sm_80: one).
// Scratch is not used.
#include "../attention_mma.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

struct Outputs {
  Heads<float> o, lse, grad, dq, dk, dv;
};

template <class tiles>
__device__ void clear(typename tiles::Outputs& sums) {
  TITAN_UNROLL
  for (int n = 0; n < tiles::P / 8; n++) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0;
}

template <class tiles>
__global__ void __launch_bounds__(tiles::THREADS, 1) query_gradients(MmaAttention c, Outputs out) {
  const typename tiles::Rows q(dynamic_shared()), grad = q + tiles::ROWS, k = grad + tiles::ROWS, v = k + tiles::OTHERS;
  const int64_t query_tiles = (c.T + tiles::ROWS - 1) / tiles::ROWS;
  for (int64_t task = blockIdx.x; task < c.B * c.H * query_tiles; task += gridDim.x) {
    const int64_t first = (query_tiles - 1 - task % query_tiles) * tiles::ROWS, h = task / query_tiles % c.H, b = task / query_tiles / c.H, g = h / (c.H / c.G);
    __syncthreads();
    load_rows<tiles, tiles::ROWS>(q, c, c.q, c.queries, true, b, h, first, c.scale * float(LOG2E));
    load_rows<tiles, tiles::ROWS>(grad, c, out.grad, c.queries, false, b, h, first, 1);
    const RowTokens<tiles, true> queries(c, b, first);
    __syncthreads();
    float lse[2] = {}, delta[2] = {};  // delta = do . o
    TITAN_UNROLL
    for (int which = 0; which < 2; which++) {
      if (queries.exists[which]) {
        lse[which] = out.lse.at(b, first + tiles::row(which), h)[0] * float(LOG2E);
        const Elements<float> o = out.o.at(b, first + tiles::row(which), h);
        for (int column = tiles::column(0, 0); column < c.K; column += 8) {
          const bf16* const x = grad.at(tiles::row(which), column);
          delta[which] += x[0] * o[column] + x[1] * o[column + 1];
        }
      }
      delta[which] = join_quad(delta[which], Sum());
    }
    typename tiles::Outputs dq;
    clear<tiles>(dq);
    for (int64_t begin = 0; begin < c.S; begin += tiles::OTHERS) {
      const uint32_t seen = queries.seen(c, begin);
      if (!__syncthreads_or(seen != 0)) continue;  // a barrier, too: the tiles before have been used
      load_rows<tiles, tiles::OTHERS>(k, c, c.k, c.keys, true, b, g, begin, 1);
      load_rows<tiles, tiles::OTHERS>(v, c, c.v, c.keys, false, b, g, begin, 1);
      __syncthreads();
      if (!__any_sync(~0u, seen != 0)) continue;
      typename tiles::Scores ds, dp;
      multiply_rows<tiles>(ds, q, k, c.width);
      multiply_rows<tiles>(dp, grad, v, c.width);
      TITAN_UNROLL
      for (int n = 0; n < tiles::OTHERS / 8; n++)
        TITAN_UNROLL
        for (int i = 0; i < 4; i++) ds[n][i] = seen >> (4 * n + i) & 1 ? std::exp2(ds[n][i] - lse[i / 2]) * (dp[n][i] - delta[i / 2]) : 0;
      add_weighted<tiles>(dq, ds, k, c.width);
    }
    TITAN_UNROLL
    for (int which = 0; which < 2; which++) {
      const int64_t t = first + tiles::row(which);
      if (queries.exists[which]) store_sums<tiles>(out.dq.at(b, t, h), dq, which, c, c.scale, c.queries.angles(b, t));
    }
  }
}

/// lse and delta of a tile of queries, beside their rows, by as many neighbouring threads each as there are.
template <class tiles>
__device__ void load_deltas(const typename tiles::Rows& beside, const MmaAttention& c, const Outputs& out, int64_t b, int64_t h, int64_t begin) {
  constexpr int EACH = tiles::THREADS / tiles::OTHERS;
  const int query = int(threadIdx.x) / EACH, part = int(threadIdx.x) % EACH;
  const int64_t t = begin + query;
  float delta = 0;
  if (t < c.T) {
    const Elements<float> o = out.o.at(b, t, h), grad = out.grad.at(b, t, h);
    for (int column = 2 * part; column < c.K; column += 2 * EACH) delta += float(bf16(grad[column])) * o[column] + float(bf16(grad[column + 1])) * o[column + 1];
  }
  for (int with = EACH / 2; with; with /= 2) delta += __shfl_xor_sync(~0u, delta, with);
  if (part == 0) beside.spare(query)[0] = t < c.T ? out.lse.at(b, t, h)[0] * float(LOG2E) : 0, beside.spare(query)[1] = delta;
}

template <class tiles, bool makes_dk, bool makes_dv>
__global__ void __launch_bounds__(tiles::THREADS, 1) key_gradients(MmaAttention c, Outputs out) {
  const typename tiles::Rows k(dynamic_shared()), v = k + tiles::ROWS, q = v + tiles::ROWS, grad = q + tiles::OTHERS;
  const int64_t key_tiles = (c.S + tiles::ROWS - 1) / tiles::ROWS, heads = c.H / c.G;
  for (int64_t task = blockIdx.x; task < c.B * c.G * key_tiles; task += gridDim.x) {
    const int64_t first = task % key_tiles * tiles::ROWS, g = task / key_tiles % c.G, b = task / key_tiles / c.G;
    __syncthreads();
    load_rows<tiles, tiles::ROWS>(k, c, c.k, c.keys, true, b, g, first, 1);
    if (makes_dk) load_rows<tiles, tiles::ROWS>(v, c, c.v, c.keys, false, b, g, first, 1);
    const RowTokens<tiles, false> keys(c, b, first);
    typename tiles::Outputs dk, dv;
    if (makes_dk) clear<tiles>(dk);
    if (makes_dv) clear<tiles>(dv);
    for (int64_t h = g * heads; h < (g + 1) * heads; h++)
      for (int64_t begin = 0; begin < c.T; begin += tiles::OTHERS) {
        const uint32_t seen = keys.seen(c, begin);
        if (!__syncthreads_or(seen != 0)) continue;
        load_rows<tiles, tiles::OTHERS>(q, c, c.q, c.queries, true, b, h, begin, c.scale * float(LOG2E));
        load_rows<tiles, tiles::OTHERS>(grad, c, out.grad, c.queries, false, b, h, begin, 1);
        load_deltas<tiles>(grad, c, out, b, h, begin);
        __syncthreads();
        if (!__any_sync(~0u, seen != 0)) continue;
        typename tiles::Scores p;
        multiply_rows<tiles>(p, k, q, c.width);
        TITAN_UNROLL
        for (int n = 0; n < tiles::OTHERS / 8; n++)
          TITAN_UNROLL
          for (int i = 0; i < 4; i++) p[n][i] = seen >> (4 * n + i) & 1 ? std::exp2(p[n][i] - grad.spare(tiles::column(n, i % 2))[0]) : 0;
        if (makes_dv) add_weighted<tiles>(dv, p, grad, c.width);
        if (makes_dk) {
          typename tiles::Scores ds;
          multiply_rows<tiles>(ds, v, grad, c.width);
          TITAN_UNROLL
          for (int n = 0; n < tiles::OTHERS / 8; n++)
            TITAN_UNROLL
            for (int i = 0; i < 4; i++) ds[n][i] = seen >> (4 * n + i) & 1 ? p[n][i] * (ds[n][i] - grad.spare(tiles::column(n, i % 2))[1]) : 0;
          add_weighted<tiles>(dk, ds, q, c.width);
        }
      }
    TITAN_UNROLL
    for (int which = 0; which < 2; which++) {
      const int64_t s = first + tiles::row(which);
      if (!keys.exists[which]) continue;
      if (makes_dk) store_sums<tiles>(out.dk.at(b, s, g), dk, which, c, float(LN2), c.keys.angles(b, s));  // q carries scale log2(e)
      if (makes_dv) store_sums<tiles>(out.dv.at(b, s, g), dv, which, c, 1, nullptr);
    }
  }
}

template <class tiles>
void attend_backward(const Call& call) {
  const MmaAttention c(call, 6, {3, 5, 12, 13, 14});
  const Outputs out{call[3], call[4], call[5], call[12], call[13], call[14]};
  constexpr unsigned SHARED_BYTES = 2 * (tiles::ROWS + tiles::OTHERS) * tiles::Rows::BYTES;
  const Shape queries{blocks_for(c.B * c.H * ((c.T + tiles::ROWS - 1) / tiles::ROWS), 1), tiles::THREADS, SHARED_BYTES};
  const Shape keys{blocks_for(c.B * c.G * ((c.S + tiles::ROWS - 1) / tiles::ROWS), 1), tiles::THREADS, SHARED_BYTES};
  launch(query_gradients<tiles>, queries, call, c, out);
  if constexpr (tiles::P <= 128) {
    launch(key_gradients<tiles, true, true>, keys, call, c, out);
  } else {
    launch(key_gradients<tiles, true, false>, keys, call, c, out);
    launch(key_gradients<tiles, false, true>, keys, call, c, out);
  }
}

}  // namespace

void attend_backward_on_tensor_cores(const Call& call) {
  if (const int64_t K = call[0].dims[3]; K <= 64) attend_backward<MmaTiles<64, 8, 64>>(call);
  else if (K <= 128) attend_backward<MmaTiles<128, 8, 32>>(call);
  else attend_backward<MmaTiles<256, 4, 32>>(call);
}

}  // namespace titan::cuda
