// Attention forward.  q[B,T,H,K], k[B,S,G,K], v[B,S,G,K] -> o[B,T,H,K], lse[B,H,T]
//   s[t,j] = scale rope(q[t]) . rope(k[j]) for the keys j that t sees (position j <= position t, same document)
//   lse[t] = log sum_j exp s[t,j],   o[t] = sum_j exp(s[t,j] - lse[t]) v[j];     a query that sees no key: o = 0, lse = -inf
// With other_o and other_lse, those of other keys: as if lse had the summand exp other_lse, and o had exp(other_lse - lse) other_o. They may be
// o and lse themselves, read block by block before these are written.
// Query head h uses key head h / (H/G). q, k, v and o are views of any strides but the last: of the one product that made them, and of
// the one that follows. With bf16 = 1 they may be stored as bf16, and the products take bf16: scale log2(e) rope(q), rope(k), v and the
// unnormalized probabilities are rounded; sums, maximum and lse stay f32.
//
// Compute-bound: two products and an exponential per visible pair. One pass over the keys with a running maximum ("flash"), in
// tiles of 64 keys by Tile::QUERIES queries that never leave L1. Rotation, scale and the change to rows without gaps happen once, while a
// head is loaded into the thread's scratch; rows that lie a whole product apart would collide in the cache. Tiles that no query sees are
// skipped, tiles that all see are not masked. A task is a key head of one sequence and some of its query blocks (all, unless threads would
// idle). Few queries take another way (attention_few.h). A query's result does not depend on which task or thread it falls to: the same bits for any number of threads.
// Error, relative to the largest |o|: f64 1e-14, f32 4e-6; with bf16 products 2^-7 of the result for the rounded operands,
// where the processor multiplies bf16 with numbers and sums below 2^-126 as 0.
// Scratch per thread: K, V [S padded to 64, P], the query block twice [64, P], scores [64, 64], a Range per 64 keys; in reals, of which bf16
// takes half.
#include "attention.h"

#include "../kernels.h"
#include "../parallel.h"
#include "attention_few.h"
#include "attention_tiles.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

int64_t scratch_bytes(int64_t S, int64_t K, int64_t element) {
  const int64_t P = round_up(K, 16), keys = round_up(S, BLOCK_KEYS);
  return round_up(element * (2 * keys * P + 2 * MOST_QUERIES * P + BLOCK_KEYS * MOST_QUERIES) + keys / BLOCK_KEYS * int64_t(sizeof(Range)), 64);
}

/// One head's keys and values in scratch, and the buffers of one query block.
template <class F>
struct Block {
  using real = typename F::real;
  using storage = typename F::storage;
  using number = typename F::number;
  using unit = typename F::unit;
  using tile = Tile<real>;
  static constexpr int V = tile::VECTORS, L = LANES<real>, Q = tile::QUERIES;
  const Heads& heads;
  number* keys_SP;
  unit *value_pairs, *queries_PQ, *powers_JQ;  // queries and powers become units in place, from:
  real *query_columns, *scores_JQ;
  real *query_rows, *output_PQ;  // one place: the rows are free when the first tile comes
  Range* ranges;
  Mask<real> mask;

  Block(const Heads& h, char* scratch) : heads(h) {
    real* next = reinterpret_cast<real*>(scratch);
    keys_SP = reinterpret_cast<number*>(next), next += h.padded_keys * h.P;
    value_pairs = reinterpret_cast<unit*>(next), next += h.padded_keys * h.P;
    query_columns = next, queries_PQ = reinterpret_cast<unit*>(next), next += MOST_QUERIES * h.P;
    query_rows = output_PQ = next, next += MOST_QUERIES * h.P;
    scores_JQ = next, powers_JQ = reinterpret_cast<unit*>(next), next += BLOCK_KEYS * MOST_QUERIES;
    ranges = reinterpret_cast<Range*>(next);
  }

  /// Only blocks of which some query sees a key.
  void load_keys(int64_t b, int64_t g) {
    const Range queries = heads.query_range(b);
    heads.load_ranges(b, 0, heads.padded_keys, ranges);
    for (int64_t begin = 0; begin < heads.padded_keys; begin += BLOCK_KEYS)
      if (visible(ranges[begin / BLOCK_KEYS], queries) != Visible::NONE) heads.load_keys<F>(b, g, begin, begin + BLOCK_KEYS, keys_SP, nullptr, nullptr, value_pairs);
  }
  void load_queries(int64_t b, int64_t h, int64_t begin, int64_t count, real scale) {
    const Head<storage> q(heads.q, b, h);
    const Angles<real> angles(heads.q_table, b);
    for (int64_t i = 0; i < count; i++) {
      q.prefetch(begin + i);
      load_head<F>(query_rows + i * heads.P, q[begin + i], angles[begin + i], heads.K, heads.P, scale);
    }
    std::fill(query_rows + count * heads.P, query_rows + Q * heads.P, real(0));
    transpose(query_rows, Q, heads.P, query_columns);
    pack_rows<F>(query_columns, heads.P, Q);
    mask.set_queries(heads.queries(b), begin, count);
  }

  /// Scores of rows [row, row + rows) of the tile, for the query vectors from `first` on; `most` collects their maxima.
  template <int first, bool masked>
  TITAN_INLINE void scores(const unit* keys, int row, int rows, vec<real> (&most)[V]) {
    const int64_t depth = heads.P / F::PAIR;
    const auto zero = [](int, int) { return vec<real>{}; };
    for (int j = row; j < row + rows; j += tile::ROWS)
      product<F, tile::ROWS, V - first>(keys + j * depth, depth, 1, queries_PQ + first * L, Q, depth, zero, [&](int m, int v, vec<real> score) {
        if constexpr (masked) score = mask(score, j + m, first + v);
        most[first + v] = larger(score, most[first + v]);
        store(scores_JQ + (j + m) * Q + (first + v) * L, score);
      });
  }

  /// Adds all keys for the loaded queries.
  void attend(int64_t b, vec<real> (&most)[V], vec<real> (&sum)[V]) {
    for (int64_t begin = 0; begin < heads.padded_keys; begin += BLOCK_KEYS) {
      const Visible seen = visible(ranges[begin / BLOCK_KEYS], mask.queries);
      if (seen == Visible::NONE) continue;
      const unit *keys = reinterpret_cast<const unit*>(keys_SP + begin * heads.P), *values = value_pairs + begin / F::PAIR * heads.P;
      vec<real> before[V], rescale[V];
      for (int v = 0; v < V; v++) before[v] = most[v];
      if (seen == Visible::ALL) {
        scores<0, false>(keys, 0, tile::KEYS, most);
      } else {
        mask.set_keys(heads.keys(b), begin, std::min(BLOCK_KEYS, heads.S - begin));
        for (int g = 0; g < tile::KEYS / tile::GROUP; g++)
          with_constant<V + 1>(mask.first[g], [&](auto first) {
            if constexpr (first < V) scores<first, true>(keys, g * tile::GROUP, tile::GROUP, most);
          });
      }
      for (int v = 0; v < V; v++) rescale[v] = exp2_quick<real>(before[v] - most[v]), sum[v] *= rescale[v];
      if (seen == Visible::ALL) powers<F, 0>(scores_JQ, powers_JQ, 0, tile::KEYS, most, sum);
      else
        for (int g = 0; g < tile::KEYS / tile::GROUP; g++) with_constant<V + 1>(mask.first[g], [&](auto first) { powers<F, first>(scores_JQ, powers_JQ, g * tile::GROUP, tile::GROUP, most, sum); });
      for (int64_t p = 0; p < heads.P; p += tile::ROWS)
        product<F, tile::ROWS, V>(values + p, 1, heads.P, powers_JQ, Q, tile::KEYS / F::PAIR, [&](int m, int v) { return load(output_PQ + (p + m) * Q + v * L) * rescale[v]; },
                                  [&](int m, int v, vec<real> x) { store(output_PQ + (p + m) * Q + v * L, x); });
    }
  }
};

/// No keys yet: the output (not yet divided) in output_PQ, the running maximum and sum in base 2.
template <class Block, class Vec, int V>
void begin_alone(Block& block, Vec (&most)[V], Vec (&sum)[V]) {
  using real = typename Block::real;
  for (int v = 0; v < V; v++) most[v] = splat(real(-1e30)), sum[v] = vec<real>{};  // finite, so that -inf - most is no NaN
  std::fill(block.output_PQ, block.output_PQ + block.heads.P * Block::Q, real(0));
}
/// Other keys: they count as one, with a power of 1. The scores' place holds rows until they are columns.
template <class Block, class Vec, int V>
void begin_with(Block& block, const Tensor& o, const Tensor& lse, int64_t b, int64_t h, int64_t first, int64_t count, Vec (&most)[V], Vec (&sum)[V]) {
  using real = typename Block::real;
  constexpr int L = LANES<real>, Q = Block::Q;
  begin_alone(block, most, sum);
  const Head<typename Block::storage> rows(o, b, h);
  const int64_t K = block.heads.K, P = block.heads.P;
  for (int64_t p = 0; p < P; p += BLOCK_KEYS) {
    const int64_t width = std::min(BLOCK_KEYS, P - p);
    std::fill(block.scores_JQ, block.scores_JQ + Q * width, real(0));
    for (int64_t i = 0; i < count; i++)
      for (int64_t k = 0; k < width && p + k < K; k += L) store(block.scores_JQ + i * width + k, rows[first + i].load(p + k, std::min<int64_t>(L, K - p - k)));
    transpose(block.scores_JQ, Q, width, block.output_PQ + p * Q);
  }
  for (int64_t i = 0; i < count; i++) {
    const real natural = lse.as<real>()[b * lse.strides[0] + h * lse.strides[1] + (first + i) * lse.strides[2]];
    if (natural != -std::numeric_limits<real>::infinity()) most[i / L][i % L] = natural * real(LOG2E), sum[i / L][i % L] = 1;
  }
}

template <class Block>
void attention(const Call& call) {
  using real = typename Block::real;
  using storage = typename Block::storage;
  using tile = Tile<real>;
  constexpr int V = tile::VECTORS, L = LANES<real>;
  const Heads heads(call, 3);
  const Tensor &other_o = call[9], &other_lse = call[10], &o = call[11], &lse = call[12];
  const real scale = real(call.attributes[0].f * LOG2E);
  const int64_t per_group = heads.H / heads.G, blocks = (heads.T + tile::QUERIES - 1) / tile::QUERIES * per_group;
  const int64_t groups = heads.B * heads.G, parts = std::clamp<int64_t>(groups >= 4 * call.threads ? 1 : (4 * call.threads + groups - 1) / groups, 1, std::max<int64_t>(blocks, 1));
  const int64_t bytes = scratch_bytes(heads.S, heads.K, sizeof(real));
  for_each_in_turn(groups * parts, call.threads, [&](int64_t task, int thread) {
    const int64_t b = task / parts / heads.G, g = task / parts % heads.G, part = task % parts;
    Block block(heads, call[13].as<char>() + thread * bytes);
    block.load_keys(b, g);
    for (int64_t i = blocks * part / parts; i < blocks * (part + 1) / parts; i++) {
      const int64_t h = g * per_group + i % per_group, begin = i / per_group * tile::QUERIES, count = std::min<int64_t>(tile::QUERIES, heads.T - begin);
      block.load_queries(b, h, begin, count, scale);
      vec<real> most[V], sum[V];
      if (present(other_o)) begin_with(block, other_o, other_lse, b, h, begin, count, most, sum);
      else begin_alone(block, most, sum);
      block.attend(b, most, sum);
      real logarithms[tile::QUERIES];
      for (int v = 0; v < V; v++) {
        const vec<real> inverse = sum[v] == 0 ? vec<real>{} : 1 / sum[v];
        for (int64_t p = 0; p < heads.P; p++) store(block.output_PQ + p * tile::QUERIES + v * L, load(block.output_PQ + p * tile::QUERIES + v * L) * inverse);
        store(logarithms + v * L, most[v] * real(LN2) + log_lanes<real>(sum[v]));
      }
      real* output_QP = block.query_columns;
      transpose(block.output_PQ, heads.P, tile::QUERIES, output_QP);
      const Head<storage> output(o, b, h);
      for (int64_t t = 0; t < count; t++) {
        store_head(output[begin + t], output_QP + t * heads.P, nullptr, heads.K, real(1));
        lse.as<real>()[b * lse.strides[0] + h * lse.strides[1] + (begin + t) * lse.strides[2]] = logarithms[t];
      }
    }
  });
}

}  // namespace

void run_attention(const Call& call) {
  if (is_of_few_queries(call)) return attend_few(call);
#if defined(__AMX_BF16__)
  using Bf16Block = ForwardTiles;
#else
  using Bf16Block = Block<Rounded>;
#endif
  if (call.attributes[1].i) attention<Bf16Block>(call);
  else with_real(call[0].dtype, [&](auto zero) { attention<Block<Exact<decltype(zero)>>>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_attention(const Call& call) {
  Check check(call, {"q", "k", "v", "q_table", "k_table", "q_positions", "k_positions", "q_documents", "k_documents", "other_o", "other_lse", "o", "lse", "scratch"}, 2);
  const DType real = check.real_or_bf16(0);
  const int64_t B = check.dim(0, 0), T = check.dim(0, 1), H = check.dim(0, 2), K = check.dim(0, 3);
  if (check.ok()) check_heads(check, call, real, 3, {0, 1, 2, 11});
  check.require(present(call[9]) == present(call[10]), "only one of other_o and other_lse is given; expected: both or neither");
  if (check.ok() && present(call[9])) check.operand(9, real, {B, T, H, K}).rows(9).operand(10, real, {B, H, T});
  check.real_or_bf16(11, real, {B, T, H, K}).rows(11).writable(11).operand(12, real, {B, H, T}).writable(12).in_place(9, 11);
  return check.scratch(13, call.threads * scratch_bytes(check.dim(1, 1), K, int64_t(size_of(real)))).error();
}
}  // namespace titan::cpu
#endif
