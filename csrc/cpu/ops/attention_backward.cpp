// Attention backward.  q, k, v, o, lse, do (shapes of attention.cpp) -> dq[B,T,H,K], dk[B,S,G,K], dv[B,S,G,K]
//   p = exp(s - lse) again from the scores,  delta[t] = do[t] . o[t]
//   dv[j] = sum_t p[t,j] do[t],   ds = p (do v^T - delta),   dq = scale ds rope(k), turned back,   dk = scale ds^T rope(q), turned back
// A query that sees no key has gradient 0. dq, dk and dv may be views of one buffer laid out like the product that made q, k and v. With
// bf16 = 1 all but lse may be stored as bf16, and the products take bf16: as forward, and do, p and ds are rounded; sums and delta stay f32.
//
// Compute-bound: five products and an exponential per visible pair. A task is a key head of one sequence: it goes over its query blocks
// (of all H/G query heads) and, inside, over the visible key blocks, so dk and dv gather in the thread's scratch without atomics. Where
// that leaves threads idle, tasks make dk and dv of some key blocks, or dq of some query blocks, for seven products instead of five. Every
// sum runs in the same order either way: the same bits for any number of threads.
// Error, relative to the largest of each gradient: f64 1e-14, f32 4e-6; with bf16 products 2^-7 of the result for the rounded operands,
// where the processor multiplies bf16 with numbers and sums below 2^-126 as 0.
// Scratch per thread: K, V, dK, dV [S padded to 64, P], of the query block q and do (rows and columns) and dq [64, P], p and ds [64, 64],
// a Range per 64 keys; in reals, of which bf16 takes half.
#include "attention.h"

#include "../kernels.h"
#include "../parallel.h"
#include "attention_backward_tiles.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

int64_t scratch_bytes(int64_t S, int64_t K, int64_t element) {
  const int64_t P = round_up(K, 16), keys = round_up(S, BLOCK_KEYS);
  return round_up(element * (4 * keys * P + 5 * MOST_QUERIES * P + 2 * BLOCK_KEYS * MOST_QUERIES) + keys / BLOCK_KEYS * int64_t(sizeof(Range)), 64);
}

/// c[KEYS, P] += a[KEYS, Q] b[Q, P] for rows [row, row + GROUP) and queries from q on, in units of queries. The widest register tile that fits P.
template <class F>
TITAN_INLINE void add_outer(const typename F::number* a_JQ, const typename F::unit* b_QP, typename F::real* c_JP, int row, int q, int64_t P) {
  using real = typename F::real;
  using tile = Tile<real>;
  constexpr int L = LANES<real>, depth = tile::QUERIES / F::PAIR;
  const auto* a = reinterpret_cast<const typename F::unit*>(a_JQ);
  q /= F::PAIR;
  auto strips = [&](auto rows, auto vectors) {
    for (int64_t p = 0; p < P; p += vectors * L)
      for (int j = row; j < row + tile::GROUP; j += rows)
        product<F, rows, vectors>(a + j * depth + q, depth, 1, b_QP + q * P + p, P, depth - q,
                                  [&](int m, int v) { return load(c_JP + (j + m) * P + p + v * L); }, [&](int m, int v, vec<real> x) { store(c_JP + (j + m) * P + p + v * L, x); });
  };
  if (MANY_REGISTERS && P / L % 4 == 0) strips(std::integral_constant<int, 4>(), std::integral_constant<int, 4>());
  else if (P / L % 2 == 0) strips(std::integral_constant<int, MANY_REGISTERS ? 8 : 4>(), std::integral_constant<int, 2>());
  else strips(std::integral_constant<int, 16>(), std::integral_constant<int, 1>());
}

template <class F>
struct Block {
  using real = typename F::real;
  using storage = typename F::storage;
  using number = typename F::number;
  using unit = typename F::unit;
  using tile = Tile<real>;
  static constexpr int V = tile::VECTORS, L = LANES<real>, Q = tile::QUERIES;
  const Heads& heads;
  const Wanted wanted;
  number *keys_SP, *values_SP, *p_JQ, *ds_JQ;
  unit *key_pairs, *q_QP, *q_PQ, *do_QP, *do_PQ, *ds_pairs;
  real *dkeys_SP, *dvalues_SP, *dq_PQ, *q_rows, *q_columns, *do_rows, *do_columns, *exact_p_JQ;  // the last five become numbers and units in place
  Range* ranges;
  Mask<real> mask;
  vec<real> lse[V], delta[V];  // lse in base 2

  Block(const Heads& h, Wanted w, char* scratch) : heads(h), wanted(w) {
    real* next = reinterpret_cast<real*>(scratch);
    const int64_t keys = h.padded_keys * h.P, queries = MOST_QUERIES * h.P, scores = BLOCK_KEYS * MOST_QUERIES;
    const int64_t half = F::PAIR > 1;  // rows of numbers take half of their place, and the same numbers paired across rows the other; else both are one
    keys_SP = reinterpret_cast<number*>(next), key_pairs = reinterpret_cast<unit*>(next) + half * keys / 2, next += keys;
    values_SP = reinterpret_cast<number*>(next), next += keys;
    dkeys_SP = next, next += keys;
    dvalues_SP = next, next += keys;
    q_rows = next, q_QP = reinterpret_cast<unit*>(next), next += queries;
    q_columns = next, q_PQ = reinterpret_cast<unit*>(next), next += queries;
    do_rows = next, do_QP = reinterpret_cast<unit*>(next), next += queries;
    do_columns = next, do_PQ = reinterpret_cast<unit*>(next), next += queries;
    dq_PQ = next, next += queries;
    exact_p_JQ = next, p_JQ = reinterpret_cast<number*>(next), next += scores;
    ds_JQ = reinterpret_cast<number*>(next), ds_pairs = reinterpret_cast<unit*>(next) + half * scores / 2, next += scores;
    ranges = reinterpret_cast<Range*>(next);
  }

  void load_keys(int64_t b, int64_t g, int64_t first, int64_t end) {
    heads.load_keys<F>(b, g, first, end, keys_SP, F::PAIR > 1 ? key_pairs : nullptr, values_SP, nullptr);
    heads.load_ranges(b, first, end, ranges);
  }

  void load_queries(const Tensor& o, const Tensor& lse_BHT, const Tensor& grad, int64_t b, int64_t h, int64_t begin, int64_t count, real scale) {
    const int64_t K = heads.K, P = heads.P;
    const real infinity = std::numeric_limits<real>::infinity();
    const Head<storage> q(heads.q, b, h), output(o, b, h), doutput(grad, b, h);
    const Angles<real> angles(heads.q_table, b);
    const real* logarithms = lse_BHT.as<real>() + b * lse_BHT.strides[0] + h * lse_BHT.strides[1];
    for (int64_t i = 0; i < Q; i++) {
      vec<real>&base2 = lse[i / L], &dot = delta[i / L];  // an element of a vector has no address in Clang
      base2[i % L] = infinity, dot[i % L] = 0;  // exp2(score - inf) = 0: neither a missing query nor one that sees no key leaves a trace
      if (i >= count) continue;
      const int64_t t = begin + i;
      q.prefetch(t), output.prefetch(t), doutput.prefetch(t);
      load_head<F>(q_rows + i * P, q[t], angles[t], K, P, scale);
      load_head<F>(do_rows + i * P, doutput[t], nullptr, K, P, real(1));
      vec<real> products = {};
      for_lanes<real>(K, [&](int64_t k, int64_t lanes) { products += output[t].load(k, lanes) * F::rounded(load(do_rows + i * P + k)); });
      dot[i % L] = sum_lanes<real>(products);
      const real natural = logarithms[t * lse_BHT.strides[2]];
      if (natural != -infinity) base2[i % L] = natural * real(LOG2E);
    }
    for (real* rows : {q_rows, do_rows}) std::fill(rows + count * P, rows + Q * P, real(0));
    transpose(q_rows, Q, P, q_columns);
    transpose(do_rows, Q, P, do_columns);
    for (real* rows : {q_rows, do_rows}) pack_rows<F>(rows, Q, P);
    for (real* columns : {q_columns, do_columns}) pack_rows<F>(columns, P, Q);
    std::fill(dq_PQ, dq_PQ + P * Q, real(0));
  }

  /// p and ds of rows [row, row + rows) of the tile, for the query vectors from `first` on; before, ds is zero and p is not read.
  template <int first, bool masked>
  TITAN_INLINE void gradients(const unit* keys, const unit* values, int row, int rows) {
    const int64_t depth = heads.P / F::PAIR;
    const auto zero = [](int, int) { return vec<real>{}; };
    if constexpr (first < V) {
      for (int j = row; j < row + rows; j += tile::ROWS)
        product<F, tile::ROWS, V - first>(keys + j * depth, depth, 1, q_PQ + first * L, Q, depth, zero, [&](int m, int v, vec<real> score) {
          if constexpr (masked) score = mask(score, j + m, first + v);
          store(exact_p_JQ + (j + m) * Q + (first + v) * L, exp2_quick<real>(score - lse[first + v]));
        });
    }
    for (int j = row; j < row + rows; j += tile::ROWS) {
      vec<real> ds[tile::ROWS][V] = {};
      if constexpr (first < V) {
        product<F, tile::ROWS, V - first>(values + j * depth, depth, 1, do_PQ + first * L, Q, depth, zero, [&](int m, int v, vec<real> dp) {
          const int64_t at = (j + m) * Q + (first + v) * L;
          const vec<real> p = load(exact_p_JQ + at);
          ds[m][first + v] = p * (dp - delta[first + v]);
          if constexpr (F::ROUNDS) F::put(p_JQ + at, p);
          if constexpr (F::PAIR > 1) F::put(ds_JQ + at, ds[m][first + v]);
        });
      }
#pragma GCC unroll 4
      for (int m = 0; m < tile::ROWS; m += F::PAIR)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
          vec<real> x[F::PAIR];
          for (int i = 0; i < F::PAIR; i++) x[i] = ds[m + i][v];
          F::put_unit(ds_pairs + (j + m) / F::PAIR * Q + v * L, x);
        }
    }
  }

  /// The loaded queries with keys from `first_key` to `end_key`: adds to dK and dV, and to dq.
  void attend(int64_t b, int64_t first_key, int64_t end_key) {
    const int64_t P = heads.P;
    for (int64_t begin = first_key; begin < end_key; begin += BLOCK_KEYS) {
      const Visible seen = visible(ranges[begin / BLOCK_KEYS], mask.queries);
      if (seen == Visible::NONE) continue;
      const unit *keys = reinterpret_cast<const unit*>(keys_SP + begin * P), *values = reinterpret_cast<const unit*>(values_SP + begin * P), *pairs = key_pairs + begin / F::PAIR * P;
      if (seen == Visible::ALL) {
        mask.see_all();
        gradients<0, false>(keys, values, 0, tile::KEYS);
      } else {
        mask.set_keys(heads.keys(b), begin, std::min(BLOCK_KEYS, heads.S - begin));
        for (int g = 0; g < tile::KEYS / tile::GROUP; g++) with_constant<V + 1>(mask.first[g], [&](auto first) { gradients<first, true>(keys, values, g * tile::GROUP, tile::GROUP); });
      }
      for (int g = 0; g < tile::KEYS / tile::GROUP && wanted != Wanted::QUERIES; g++)
        if (mask.first[g] < V) {
          add_outer<F>(p_JQ, do_QP, dvalues_SP + begin * P, g * tile::GROUP, mask.first[g] * L, P);
          add_outer<F>(ds_JQ, q_QP, dkeys_SP + begin * P, g * tile::GROUP, mask.first[g] * L, P);
        }
      for (int64_t p = 0; p < P && wanted != Wanted::KEYS; p += tile::ROWS)
        product<F, tile::ROWS, V>(pairs + p, 1, P, ds_pairs, Q, tile::KEYS / F::PAIR, [&](int m, int v) { return load(dq_PQ + (p + m) * Q + v * L); },
                                  [&](int m, int v, vec<real> x) { store(dq_PQ + (p + m) * Q + v * L, x); });
    }
  }
};

/// Does any query see any of the keys from `first` to `end`?
bool any_visible(const Range* ranges, const Range& queries, int64_t first, int64_t end) {
  return std::any_of(ranges + first / BLOCK_KEYS, ranges + end / BLOCK_KEYS, [&](const Range& keys) { return visible(keys, queries) != Visible::NONE; });
}

template <class Block>
void attention_backward(const Call& call) {
  using real = typename Block::real;
  using storage = typename Block::storage;
  using tile = Tile<real>;
  const Heads heads(call, 6);
  const Tensor &o = call[3], &lse = call[4], &grad = call[5], &dq = call[12], &dk = call[13], &dv = call[14];
  const real scale = real(call.attributes[0].f), scale2 = real(call.attributes[0].f * LOG2E);
  const int64_t per_group = heads.H / heads.G, bytes = scratch_bytes(heads.S, heads.K, sizeof(real)), K = heads.K, P = heads.P;
  const int64_t groups = heads.B * heads.G, key_blocks = heads.padded_keys / BLOCK_KEYS, query_blocks = (heads.T + tile::QUERIES - 1) / tile::QUERIES;

  const auto run = [&](int thread, Wanted wanted, int64_t group, int64_t first_key, int64_t end_key, int64_t first_query, int64_t end_query) {
    const int64_t b = group / heads.G, g = group % heads.G;
    Block block(heads, wanted, call[15].as<char>() + thread * bytes);
    block.load_keys(b, g, first_key, end_key);
    for (real* gradient : {block.dkeys_SP, block.dvalues_SP}) std::fill(gradient + first_key * P, gradient + end_key * P, real(0));
    for (int64_t h = g * per_group; h < (g + 1) * per_group; h++)
      for (int64_t begin = first_query; begin < end_query; begin += tile::QUERIES) {
        const int64_t count = std::min<int64_t>(tile::QUERIES, heads.T - begin);
        block.mask.set_queries(heads.queries(b), begin, count);
        if (wanted == Wanted::KEYS && !any_visible(block.ranges, block.mask.queries, first_key, end_key)) continue;
        block.load_queries(o, lse, grad, b, h, begin, count, scale2);
        block.attend(b, first_key, end_key);
        if (wanted == Wanted::KEYS) continue;
        real* dq_QP = block.q_rows;
        transpose(block.dq_PQ, P, tile::QUERIES, dq_QP);
        const Head<storage> to(dq, b, h);
        const Angles<real> angles(heads.q_table, b);
        for (int64_t t = 0; t < count; t++) store_head(to[begin + t], dq_QP + t * P, angles[begin + t], K, scale);
      }
    if (wanted == Wanted::QUERIES) return;
    const Head<storage> to_dk(dk, b, g), to_dv(dv, b, g);
    const Angles<real> angles(heads.k_table, b);
    for (int64_t s = first_key; s < std::min(end_key, heads.S); s++) {
      store_head(to_dk[s], block.dkeys_SP + s * P, angles[s], K, real(LN2));  // q carries scale log2(e)
      store_head(to_dv[s], block.dvalues_SP + s * P, nullptr, K, real(1));
    }
  };

  // Whole key heads take five products each, for as many turns as the busiest thread has; in parts they take seven, spread over all threads.
  const int64_t turns = (groups + call.threads - 1) / call.threads;
  if (5 * turns * call.threads <= 7 * groups) {
    for_each_in_turn(groups, call.threads, [&](int64_t group, int thread) { run(thread, Wanted::ALL, group, 0, heads.padded_keys, 0, heads.T); });
    return;
  }
  const int64_t parts = (4 * call.threads + groups - 1) / groups;
  for_each_in_turn(2 * groups * parts, call.threads, [&](int64_t task, int thread) {
    const int64_t group = task / 2 / parts, part = task / 2 % parts, n = task % 2 ? query_blocks : key_blocks, first = n * part / parts, end = n * (part + 1) / parts;
    if (first == end) return;
    if (task % 2) run(thread, Wanted::QUERIES, group, 0, heads.padded_keys, first * tile::QUERIES, std::min(end * tile::QUERIES, heads.T));
    else run(thread, Wanted::KEYS, group, first * BLOCK_KEYS, end * BLOCK_KEYS, 0, heads.T);
  });
}

}  // namespace

void run_attention_backward(const Call& call) {
#if defined(__AMX_BF16__)
  using Bf16Block = BackwardTiles;
#else
  using Bf16Block = Block<Rounded>;
#endif
  if (call.attributes[1].i) attention_backward<Bf16Block>(call);
  else with_real(call[0].dtype, [&](auto zero) { attention_backward<Block<Exact<decltype(zero)>>>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_attention_backward(const Call& call) {
  Check check(call, {"q", "k", "v", "o", "lse", "do", "q_table", "k_table", "q_positions", "k_positions", "q_documents", "k_documents", "dq", "dk", "dv", "scratch"}, 2);
  const DType real = check.real_or_bf16(0);
  const int64_t B = check.dim(0, 0), T = check.dim(0, 1), H = check.dim(0, 2), K = check.dim(0, 3), S = check.dim(1, 1), G = check.dim(1, 2);
  if (check.ok()) check_heads(check, call, real, 6, {0, 1, 2, 3, 5, 12, 13, 14});
  check.real_or_bf16(3, real, {B, T, H, K}).rows(3).operand(4, real, {B, H, T}).real_or_bf16(5, real, {B, T, H, K}).rows(5);
  check.real_or_bf16(12, real, {B, T, H, K}).real_or_bf16(13, real, {B, S, G, K}).real_or_bf16(14, real, {B, S, G, K});
  for (int i = 12; i < 15; i++) check.rows(i).writable(i);
  return check.scratch(15, call.threads * scratch_bytes(S, K, int64_t(size_of(real)))).error();
}
}  // namespace titan::cpu
#endif
