// Attention backward.  q, k, v, o, lse, do (shapes of attention.cpp) -> dq[B,T,H,K], dk[B,S,G,K], dv[B,S,G,K]
//   p = exp(s - lse) again from the scores,  delta[t] = do[t] . o[t]
//   dv[j] = sum_t p[t,j] do[t],   ds = p (do v^T - delta),   dq = scale ds rope(k), turned back,   dk = scale ds^T rope(q), turned back
// A query that sees no key has gradient 0. dq, dk and dv may be views of one buffer laid out like the product that made q, k and v.
//
// Compute-bound: five products and an exponential per visible pair. A task is a key head of one sequence: it goes over its query blocks
// (of all H/G query heads) and, inside, over the visible key blocks, so dk and dv gather in the thread's scratch without atomics, in an
// order that depends on nothing: the same bits for any number of threads. With fewer than B G threads at work the others idle.
// Scratch per thread: K, V, dK, dV [S padded to 64, P], of the query block q and do (rows and turned) and dq [64, P], p and ds [64, 64],
// a Range per 64 keys.
#include "attention.h"

#include <omp.h>

#include "../kernels.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

int64_t scratch_bytes(int64_t S, int64_t K, int64_t element) {
  const int64_t P = round_up(K, 16), keys = round_up(S, BLOCK_KEYS);
  return round_up(element * (4 * keys * P + 5 * MOST_QUERIES * P + 2 * BLOCK_KEYS * MOST_QUERIES) + keys / BLOCK_KEYS * int64_t(sizeof(Range)), 64);
}

/// c[KEYS, P] += a[KEYS, Q] b[Q, P] for rows [row, row + GROUP) and queries from q on. The widest register tile that fits P.
template <class real>
TITAN_INLINE void add_outer(const real* a_JQ, const real* b_QP, real* c_JP, int row, int q, int64_t P) {
  using tile = Tile<real>;
  constexpr int L = LANES<real>;
  auto strips = [&](auto rows, auto vectors) {
    for (int64_t p = 0; p < P; p += vectors * L)
      for (int j = row; j < row + tile::GROUP; j += rows)
        product<rows, vectors>(a_JQ + j * tile::QUERIES + q, tile::QUERIES, 1, b_QP + q * P + p, P, tile::QUERIES - q,
                               [&](int m, int v) { return load(c_JP + (j + m) * P + p + v * L); }, [&](int m, int v, vec<real> x) { store(c_JP + (j + m) * P + p + v * L, x); });
  };
  if (MANY_REGISTERS && P / L % 4 == 0) strips(std::integral_constant<int, 4>(), std::integral_constant<int, 4>());
  else if (P / L % 2 == 0) strips(std::integral_constant<int, MANY_REGISTERS ? 8 : 4>(), std::integral_constant<int, 2>());
  else strips(std::integral_constant<int, 16>(), std::integral_constant<int, 1>());
}

template <class real>
struct Block {
  using tile = Tile<real>;
  static constexpr int V = tile::VECTORS, L = LANES<real>, Q = tile::QUERIES;
  const Heads& heads;
  real *keys_SP, *values_SP, *dkeys_SP, *dvalues_SP, *q_QP, *q_PQ, *do_QP, *do_PQ, *dq_PQ, *p_JQ, *ds_JQ;
  Range* ranges;
  Mask<real> mask;
  vec<real> lse[V], delta[V];  // lse in base 2

  Block(const Heads& h, char* scratch) : heads(h) {
    real* next = reinterpret_cast<real*>(scratch);
    for (real** matrix : {&keys_SP, &values_SP, &dkeys_SP, &dvalues_SP}) *matrix = next, next += h.padded_keys * h.P;
    for (real** matrix : {&q_QP, &q_PQ, &do_QP, &do_PQ, &dq_PQ}) *matrix = next, next += MOST_QUERIES * h.P;
    for (real** matrix : {&p_JQ, &ds_JQ}) *matrix = next, next += BLOCK_KEYS * MOST_QUERIES;
    ranges = reinterpret_cast<Range*>(next);
  }

  void load_queries(const Tensor& o, const Tensor& lse_BHT, const Tensor& grad, int64_t b, int64_t h, int64_t begin, int64_t count, real scale) {
    const int64_t K = heads.K, P = heads.P;
    const real infinity = std::numeric_limits<real>::infinity();
    for (int64_t i = 0; i < Q; i++) {
      real &base2 = lse[i / L][i % L], &dot = delta[i / L][i % L];
      base2 = infinity, dot = 0;  // exp2(score - inf) = 0: neither a missing query nor one that sees no key leaves a trace
      if (i >= count) continue;
      const int64_t t = begin + i;
      if (t + AHEAD < heads.T)
        for (const Tensor* x : {&heads.q, &o, &grad}) prefetch(Heads::row<real>(*x, b, t + AHEAD, h), K);
      load_head(q_QP + i * P, Heads::row<real>(heads.q, b, t, h), Heads::angles<real>(heads.q_table, b, t), K, P, scale);
      load_head<real>(do_QP + i * P, Heads::row<real>(grad, b, t, h), nullptr, K, P, real(1));
      const real* output = Heads::row<real>(o, b, t, h);
      vec<real> products = {};
      for_lanes<real>(K, [&](int64_t k, int64_t lanes) { products += load(output + k, lanes) * load(do_QP + i * P + k); });
      dot = sum_lanes<real>(products);
      const real natural = lse_BHT.as<real>()[b * lse_BHT.strides[0] + h * lse_BHT.strides[1] + t * lse_BHT.strides[2]];
      if (natural != -infinity) base2 = natural * real(LOG2E);
    }
    for (real* rows : {q_QP, do_QP}) std::fill(rows + count * P, rows + Q * P, real(0));
    transpose(q_QP, Q, P, q_PQ);
    transpose(do_QP, Q, P, do_PQ);
    std::fill(dq_PQ, dq_PQ + P * Q, real(0));
    mask.set_queries(heads.queries, b, begin, count);
  }

  /// p and ds of rows [row, row + rows) of the tile, for the query vectors from `first` on; zero before.
  template <int first, bool masked>
  TITAN_INLINE void gradients(const real* keys, const real* values, int row, int rows) {
    const int64_t P = heads.P;
    const auto zero = [](int, int) { return vec<real>{}; };
    for (int j = row; j < row + rows; j++)
      for (int v = 0; v < first; v++) store(p_JQ + j * Q + v * L, vec<real>{}), store(ds_JQ + j * Q + v * L, vec<real>{});
    if constexpr (first < V) {
      for (int j = row; j < row + rows; j += tile::ROWS)
        product<tile::ROWS, V - first>(keys + j * P, P, 1, q_PQ + first * L, Q, P, zero, [&](int m, int v, vec<real> score) {
          if constexpr (masked) score = mask(score, j + m, first + v);
          store(p_JQ + (j + m) * Q + (first + v) * L, exp2_quick<real>(score - lse[first + v]));
        });
      for (int j = row; j < row + rows; j += tile::ROWS)
        product<tile::ROWS, V - first>(values + j * P, P, 1, do_PQ + first * L, Q, P, zero, [&](int m, int v, vec<real> dp) {
          const int64_t at = (j + m) * Q + (first + v) * L;
          store(ds_JQ + at, load(p_JQ + at) * (dp - delta[first + v]));
        });
    }
  }

  /// All keys for the loaded queries: adds to dK, dV and dq.
  void attend(int64_t b) {
    const int64_t P = heads.P;
    for (int64_t begin = 0; begin < heads.padded_keys; begin += BLOCK_KEYS) {
      const Visible seen = visible(ranges[begin / BLOCK_KEYS], mask.queries);
      if (seen == Visible::NONE) continue;
      const real *keys = keys_SP + begin * P, *values = values_SP + begin * P;
      if (seen == Visible::ALL) {
        mask.see_all();
        gradients<0, false>(keys, values, 0, tile::KEYS);
      } else {
        mask.set_keys(heads.keys, b, begin, std::min(BLOCK_KEYS, heads.S - begin));
        for (int g = 0; g < tile::KEYS / tile::GROUP; g++) with_constant<V + 1>(mask.first[g], [&](auto first) { gradients<first, true>(keys, values, g * tile::GROUP, tile::GROUP); });
      }
      for (int g = 0; g < tile::KEYS / tile::GROUP; g++)
        if (mask.first[g] < V) {
          add_outer(p_JQ, do_QP, dvalues_SP + begin * P, g * tile::GROUP, mask.first[g] * L, P);
          add_outer(ds_JQ, q_QP, dkeys_SP + begin * P, g * tile::GROUP, mask.first[g] * L, P);
        }
      for (int64_t p = 0; p < P; p += tile::ROWS)
        product<tile::ROWS, V>(keys + p, 1, P, ds_JQ, Q, tile::KEYS, [&](int m, int v) { return load(dq_PQ + (p + m) * Q + v * L); }, [&](int m, int v, vec<real> x) { store(dq_PQ + (p + m) * Q + v * L, x); });
    }
  }
};

template <class real>
void attention_backward(const Call& call) {
  using tile = Tile<real>;
  const Heads heads(call, 6);
  const Tensor &o = call[3], &lse = call[4], &grad = call[5], &dq = call[12], &dk = call[13], &dv = call[14];
  const real scale = real(call.attributes[0].f), scale2 = real(call.attributes[0].f * LOG2E);
  const int64_t per_group = heads.H / heads.G, bytes = scratch_bytes(heads.S, heads.K, sizeof(real)), K = heads.K, P = heads.P;
#pragma omp parallel for num_threads(call.threads) schedule(dynamic, 1)
  for (int64_t task = 0; task < heads.B * heads.G; task++) {
    const int64_t b = task / heads.G, g = task % heads.G;
    Block<real> block(heads, call[15].as<char>() + omp_get_thread_num() * bytes);
    heads.load_keys(b, g, block.keys_SP, block.values_SP, block.ranges);
    std::fill(block.dkeys_SP, block.dkeys_SP + 2 * heads.padded_keys * P, real(0));  // and dV behind it
    for (int64_t h = g * per_group; h < (g + 1) * per_group; h++)
      for (int64_t begin = 0; begin < heads.T; begin += tile::QUERIES) {
        const int64_t count = std::min<int64_t>(tile::QUERIES, heads.T - begin);
        block.load_queries(o, lse, grad, b, h, begin, count, scale2);
        block.attend(b);
        transpose(block.dq_PQ, P, tile::QUERIES, block.q_QP);
        for (int64_t t = 0; t < count; t++) store_head(Heads::row<real>(dq, b, begin + t, h), block.q_QP + t * P, Heads::angles<real>(heads.q_table, b, begin + t), K, scale);
      }
    for (int64_t s = 0; s < heads.S; s++) {
      store_head(Heads::row<real>(dk, b, s, g), block.dkeys_SP + s * P, Heads::angles<real>(heads.k_table, b, s), K, real(LN2));  // q carries scale log2(e)
      store_head<real>(Heads::row<real>(dv, b, s, g), block.dvalues_SP + s * P, nullptr, K, real(1));
    }
  }
}

}  // namespace

void run_attention_backward(const Call& call) {
  with_real(call[0].dtype, [&](auto zero) { attention_backward<decltype(zero)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_attention_backward(const Call& call) {
  Check check(call, {"q", "k", "v", "o", "lse", "do", "q_table", "k_table", "q_positions", "k_positions", "q_documents", "k_documents", "dq", "dk", "dv", "scratch"}, 2);
  const DType real = check.real(0);
  const int64_t B = check.dim(0, 0), T = check.dim(0, 1), H = check.dim(0, 2), K = check.dim(0, 3), S = check.dim(1, 1), G = check.dim(1, 2);
  if (check.ok()) check_heads(check, call, real, 6);
  check.operand(3, real, {B, T, H, K}).rows(3).operand(4, real, {B, H, T}).operand(5, real, {B, T, H, K}).rows(5);
  check.operand(12, real, {B, T, H, K}).operand(13, real, {B, S, G, K}).operand(14, real, {B, S, G, K});
  for (int i = 12; i < 15; i++) check.rows(i).writable(i);
  if (check.ok()) check.require(call.attributes[1].i == 0, "bf16 is " + std::to_string(call.attributes[1].i) + "; expected: 0");
  return check.scratch(15, call.threads * scratch_bytes(S, K, int64_t(size_of(real)))).error();
}
}  // namespace titan::cpu
#endif
