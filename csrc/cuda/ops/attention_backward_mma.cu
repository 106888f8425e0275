// Attention backward with products of bf16 (the attribute bf16 is 1), on tensor cores; operands and formulas are those of attention_backward.cu, and so
// are the two kernels: one sums dq of a tile of queries over their keys, the other dk and dv of a tile of keys over the queries of all heads that share
// them. Tiles are of 128 rows by 32 or 64 others; for heads of more than 128 numbers of 64 by 32, and dk and dv are made by a launch of their own each,
// as sums of both do not fit in registers. Products of a visible pair: 3 for dq, 4 for dk and dv (5 in two launches).
// Rounded are scale log2(e) rope(q), rope(k), v, do, and p and ds; sums, lse and delta are f32.
// Compute-bound: 14 K operations of a visible pair, 768 K and 1024 K of them for each key's k and v and each query's q, do and o that are loaded
// (4 K and 6 K bytes stored as bf16). Nothing is added to memory by two blocks: sums have an order that depends on the head size alone.
// Under way while tiles are multiplied: 16 KiB of a block, the next pair of tiles; of heads of more than 128 numbers one tile, as big. A thread waits for o,
// of which delta is made, for positions and documents, and for angles.
// Registers on sm_90 for heads of up to 64, 128 and 256 numbers: dq 157, 148, 214, dk and dv 186, 211, 213 and 202; shared memory at most 65, 97, 97 KiB, for
// dv alone 65. So a multiprocessor has 8 of 64 warps at a time: one block, or two of the 4 warps that heads of more than 128 numbers have (sm_80: one but
// for dv).
// Scratch is not used.
#include "../attention_mma.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

struct Outputs {
  Heads<float> o, lse, grad, dq, dk, dv;
  bool grad_copied;
};

template <class tiles>
__device__ void clear(typename tiles::Outputs& sums) {
  TITAN_UNROLL
  for (int n = 0; n < tiles::P / 8; n++) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0;
}

template <class tiles>
__global__ void __launch_bounds__(tiles::THREADS, 1) query_gradients(MmaAttention c, Outputs out) {
  const typename tiles::Rows q(dynamic_shared()), grad = q + tiles::ROWS;
  const Held<tiles> k{grad + tiles::ROWS, {c, c.k, c.k_copied, c.keys, true, 1}}, v{k.memory + tiles::HELD, {c, c.v, c.v_copied, c.keys, false, 1}};
  const Rounded from_q{c, c.q, c.q_copied, c.queries, true, c.scale * float(LOG2E)}, from_grad{c, out.grad, out.grad_copied, c.queries, false, 1};
  const int query_tiles = int((c.T + tiles::ROWS - 1) / tiles::ROWS), heads = int(c.H), num_tasks = int(c.B) * heads * query_tiles;
  for (int task = int(blockIdx.x); task < num_tasks; task += int(gridDim.x)) {
    const int first = (query_tiles - 1 - task % query_tiles) * tiles::ROWS, h = task / query_tiles % heads, b = task / query_tiles / heads, g = h / int(c.H / c.G);
    __syncthreads();
    start_rows<tiles, tiles::ROWS>(q, from_q, b, h, first);
    start_rows<tiles, tiles::ROWS>(grad, from_grad, b, h, first);
    cp_async_commit();
    const RowTokens<tiles, true> queries(c, b, first);
    cp_async_wait<0>();
    finish_rows<tiles, tiles::ROWS>(q, from_q, b, first);
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
    typename tiles::Scores ds, dp;
    const auto use_values = [&](uint32_t, int turn) { multiply_rows<tiles>(dp, grad, v[turn], c.width); };
    const auto use_keys = [&](uint32_t seen, int turn) {
      multiply_rows<tiles>(ds, q, k[turn], c.width);
      TITAN_UNROLL
      for (int n = 0; n < tiles::OTHERS / 8; n++)
        TITAN_UNROLL
        for (int i = 0; i < 4; i++) ds[n][i] = seen >> (4 * n + i) & 1 ? std::exp2(ds[n][i] - lse[i / 2]) * (dp[n][i] - delta[i / 2]) : 0;
      add_weighted<tiles>(dq, ds, k[turn], c.width);
    };
    const auto place = [&](int i) { return TilePlace{g, i * tiles::OTHERS}; };
    walk<tiles>(b, int((c.S + tiles::OTHERS - 1) / tiles::OTHERS), v, k, place, [&](int begin) { return queries.seen(c, begin); }, [](int, TilePlace) {}, use_values, use_keys);
    TITAN_UNROLL
    for (int which = 0; which < 2; which++) {
      const int t = first + tiles::row(which);
      if (queries.exists[which]) store_sums<tiles>(out.dq.at(b, t, h), dq, which, c, c.scale, c.queries.angles(b, t));
    }
  }
}

/// lse and delta of a tile of queries, by as many neighbouring threads each as there are.
template <class tiles>
__device__ void load_deltas(float (*beside)[2], const MmaAttention& c, const Outputs& out, int b, int h, int begin) {
  constexpr int EACH = tiles::THREADS / tiles::OTHERS;
  const int query = int(threadIdx.x) / EACH, part = int(threadIdx.x) % EACH;
  const int t = begin + query;
  float delta = 0;
  if (t < c.T) {
    const Elements<float> o = out.o.at(b, t, h), grad = out.grad.at(b, t, h);
    for (int column = 2 * part; column < c.K; column += 2 * EACH) delta += float(bf16(grad[column])) * o[column] + float(bf16(grad[column + 1])) * o[column + 1];
  }
  for (int with = EACH / 2; with; with /= 2) delta += __shfl_xor_sync(~0u, delta, with);
  if (part == 0) beside[query][0] = t < c.T ? out.lse.at(b, t, h)[0] * float(LOG2E) : 0, beside[query][1] = delta;
}

template <class tiles, bool makes_dk, bool makes_dv>
__global__ void __launch_bounds__(tiles::THREADS, 1) key_gradients(MmaAttention c, Outputs out) {
  const typename tiles::Rows k(dynamic_shared()), v = k + (makes_dk ? tiles::ROWS : 0);
  const Held<tiles> q{v + tiles::ROWS, {c, c.q, c.q_copied, c.queries, true, c.scale * float(LOG2E)}}, grad{q.memory + tiles::HELD, {c, out.grad, out.grad_copied, c.queries, false, 1}};
  float (*const beside)[2] = reinterpret_cast<float (*)[2]>((grad.memory + tiles::HELD).data);
  const Rounded from_k{c, c.k, c.k_copied, c.keys, true, 1}, from_v{c, c.v, c.v_copied, c.keys, false, 1};
  const int64_t key_tiles = (c.S + tiles::ROWS - 1) / tiles::ROWS;
  const int heads = int(c.H / c.G), query_tiles = int((c.T + tiles::OTHERS - 1) / tiles::OTHERS);
  for (int64_t task = blockIdx.x; task < c.B * c.G * key_tiles; task += gridDim.x) {
    const int first = int(task % key_tiles * tiles::ROWS), g = int(task / key_tiles % c.G), b = int(task / key_tiles / c.G);
    __syncthreads();
    start_rows<tiles, tiles::ROWS>(k, from_k, b, g, first);
    if (makes_dk) start_rows<tiles, tiles::ROWS>(v, from_v, b, g, first);
    cp_async_commit();
    const RowTokens<tiles, false> keys(c, b, first);
    cp_async_wait<0>();
    finish_rows<tiles, tiles::ROWS>(k, from_k, b, first);
    typename tiles::Outputs dk, dv;
    if (makes_dk) clear<tiles>(dk);
    if (makes_dv) clear<tiles>(dv);
    typename tiles::Scores p, ds;
    const auto make_p = [&](uint32_t seen, int turn) {
      multiply_rows<tiles>(p, k, q[turn], c.width);
      TITAN_UNROLL
      for (int n = 0; n < tiles::OTHERS / 8; n++)
        TITAN_UNROLL
        for (int i = 0; i < 4; i++) p[n][i] = seen >> (4 * n + i) & 1 ? std::exp2(p[n][i] - beside[turn * tiles::OTHERS + tiles::column(n, i % 2)][0]) : 0;
    };
    const auto use_grad = [&](uint32_t, int turn) { multiply_rows<tiles>(ds, v, grad[turn], c.width); };
    const auto make_dk = [&](uint32_t seen, int turn) {
      TITAN_UNROLL
      for (int n = 0; n < tiles::OTHERS / 8; n++)
        TITAN_UNROLL
        for (int i = 0; i < 4; i++) ds[n][i] = seen >> (4 * n + i) & 1 ? p[n][i] * (ds[n][i] - beside[turn * tiles::OTHERS + tiles::column(n, i % 2)][1]) : 0;
      add_weighted<tiles>(dk, ds, q[turn], c.width);
    };
    const auto place = [&](int i) { return TilePlace{g * heads + i / query_tiles, i % query_tiles * tiles::OTHERS}; };
    const auto sees = [&](int begin) { return keys.seen(c, begin); };
    const auto load_beside = [&](int turn, TilePlace at) { load_deltas<tiles>(beside + turn * tiles::OTHERS, c, out, b, at.h, at.begin); };
    const auto walk_queries = [&](const Held<tiles>& one, const Held<tiles>& other, auto use_first, auto use_second) {
      walk<tiles>(b, heads * query_tiles, one, other, place, sees, load_beside, use_first, use_second);
    };
    if constexpr (!makes_dv)
      walk_queries(grad, q, use_grad, [&](uint32_t seen, int turn) {
        make_p(seen, turn);
        make_dk(seen, turn);
      });
    else if constexpr (!makes_dk)
      walk_queries(q, grad, make_p, [&](uint32_t, int turn) { add_weighted<tiles>(dv, p, grad[turn], c.width); });
    else
      walk_queries(q, grad, make_p, [&](uint32_t seen, int turn) {
        static_assert(tiles::DOUBLE, "q and grad are used at once");
        add_weighted<tiles>(dv, p, grad[turn], c.width);
        use_grad(seen, turn);
        make_dk(seen, turn);
      });
    TITAN_UNROLL
    for (int which = 0; which < 2; which++) {
      const int s = first + tiles::row(which);
      if (!keys.exists[which]) continue;
      if (makes_dk) store_sums<tiles>(out.dk.at(b, s, g), dk, which, c, float(LN2), c.keys.angles(b, s));  // q carries scale log2(e)
      if (makes_dv) store_sums<tiles>(out.dv.at(b, s, g), dv, which, c, 1, nullptr);
    }
  }
}

template <class tiles>
void attend_backward(const Call& call) {
  const MmaAttention c(call, 6, {3, 5, 12, 13, 14});
  const Outputs out{call[3], call[4], call[5], call[12], call[13], call[14], c.is_copied(call[5])};
  constexpr unsigned ROW = tiles::Rows::BYTES, OWN = tiles::ROWS * ROW, HELD = 2 * tiles::HELD * ROW, BESIDE = 2 * tiles::OTHERS * 2 * sizeof(float);
  const auto shape = [](int64_t rows, unsigned shared_bytes) { return Shape(blocks_for(rows, 1), tiles::THREADS, shared_bytes); };
  const int64_t queries = c.B * c.H * ((c.T + tiles::ROWS - 1) / tiles::ROWS), keys = c.B * c.G * ((c.S + tiles::ROWS - 1) / tiles::ROWS);
  launch(query_gradients<tiles>, shape(queries, 2 * OWN + HELD), call, c, out);
  if constexpr (tiles::P <= 128) {
    launch(key_gradients<tiles, true, true>, shape(keys, 2 * OWN + HELD + BESIDE), call, c, out);
  } else {
    launch(key_gradients<tiles, true, false>, shape(keys, 2 * OWN + HELD + BESIDE), call, c, out);
    launch(key_gradients<tiles, false, true>, shape(keys, OWN + HELD + BESIDE), call, c, out);
  }
}

}  // namespace

void attend_backward_on_tensor_cores(const Call& call) {
  if (const int64_t K = call[0].dims[3]; K <= 64) attend_backward<MmaTiles<64, 8, 64, true>>(call);
  else if (K <= 128) attend_backward<MmaTiles<128, 8, 32, true>>(call);
  else attend_backward<MmaTiles<256, 4, 32, false>>(call);
}

}  // namespace titan::cuda
