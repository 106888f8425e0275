// What attention's forward and backward share: the register product, loading heads, and who sees whom.
// Letters: B batch, T queries, S keys, H query heads, G key/value heads, K head size (P: padded to a multiple of 16 with zeros).
//
// Queries lie in SIMD lanes. A tile is KEYS keys by QUERIES queries; S^T[key, query] = K Q^T has keys as rows of scalars and queries as rows
// of vectors, so that maximum, exponential and sum over keys are vertical, and every product here is the one `product` below.
#pragma once
#include <algorithm>
#include <limits>

#include "../check.h"
#include "../simd.h"

namespace titan::cpu::inline TITAN_LEVEL {

template <class real>
struct Tile {
  static constexpr int VECTORS = MANY_REGISTERS ? 4 : 3;  // ROWS x VECTORS sums fill the registers
  static constexpr int ROWS = 4, QUERIES = VECTORS * LANES<real>, KEYS = 64;
  static constexpr int GROUP = 16;  // keys that share one decision on which query vectors to leave out
};
constexpr int64_t MOST_HEAD_SIZE = 256, BLOCK_KEYS = 64, MOST_QUERIES = 64;

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/// end(m, v, begin(m, v) + sum over k < depth of a[m, k] b[k, v]) for M rows of scalars a (any strides) and N vectors of b's rows.
template <int M, int N, class real, class Begin, class End>
TITAN_INLINE void product(const real* a, int64_t a_row, int64_t a_depth, const real* b, int64_t b_depth, int64_t depth, Begin begin, End end) {
  vec<real> c[M][N];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) c[m][v] = begin(m, v);
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; k++) {
    vec<real> row[N];
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) row[v] = in_register(load(b + k * b_depth + v * LANES<real>));
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
      const vec<real> x = splat(a[m * a_row + k * a_depth]);
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) c[m][v] += x * row[v];
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) end(m, v, c[m][v]);
}

/// f(std::integral_constant<int, n>) for a run-time 0 <= n < N.
template <int N, class F>
TITAN_INLINE void with_constant(int n, F f) {
  if constexpr (N == 1) f(std::integral_constant<int, 0>());
  else if (n == N - 1) f(std::integral_constant<int, N - 1>());
  else with_constant<N - 1>(n, f);
}

/// Heads lie far apart in memory, a few cache lines in each token's row, where no hardware prefetcher follows: ask for a token well ahead.
constexpr int64_t AHEAD = 16;
template <class real>
TITAN_INLINE void prefetch(const real* head, int64_t K) {
  for (int64_t k = 0; k < K; k += 64 / int64_t(sizeof(real))) __builtin_prefetch(head + k);
}

/// to[0..P) = factor * from[0..K), turned by a row of the rotary table if there is one, then zeros.
template <class real>
TITAN_INLINE void load_head(real* to, const real* from, const real* table, int64_t K, int64_t P, real factor) {
  for_lanes<real>(K, [&](int64_t k, int64_t lanes) {
    vec<real> x = load(from + k, lanes);
    if (table) x = rotate<real>(x, load(table + k, lanes), 1);
    store(to + k, x * factor);
  });
  for (int64_t k = round_up(K, LANES<real>); k < P; k += LANES<real>) store(to + k, vec<real>{});
}
/// to[0..K) = factor * from, turned back.
template <class real>
TITAN_INLINE void store_head(real* to, const real* from, const real* table, int64_t K, real factor) {
  for_lanes<real>(K, [&](int64_t k, int64_t lanes) {
    vec<real> x = load(from + k);
    if (table) x = rotate<real>(x, load(table + k, lanes), -1);
    store(to + k, x * factor, lanes);
  });
}
/// to[j, i] = from[i, j]; rows and columns are multiples of LANES.
template <class real>
void transpose(const real* from, int64_t rows, int64_t columns, real* to) {
  constexpr int L = LANES<real>;
  for (int64_t i = 0; i < rows; i += L)
    for (int64_t j = 0; j < columns; j += L) {
      vec<real> block[L];
      for (int r = 0; r < L; r++) block[r] = load(from + (i + r) * columns + j);
      transpose<real>(block);
      for (int r = 0; r < L; r++) store(to + (j + r) * rows + i, block[r]);
    }
}

// ---- who sees whom: key position <= query position, in the same document ----

/// Least and greatest position and document of some tokens. Starts as that of none, which sees and is seen by nobody.
struct Range {
  int32_t first_position = INT32_MAX, last_position = INT32_MIN, first_document = INT32_MAX, last_document = INT32_MIN;
  void add(int32_t position, int32_t document) {
    first_position = std::min(first_position, position), last_position = std::max(last_position, position);
    first_document = std::min(first_document, document), last_document = std::max(last_document, document);
  }
};
enum class Visible { NONE, SOME, ALL };
inline Visible visible(const Range& keys, const Range& queries) {
  if (keys.first_position > queries.last_position || keys.first_document > queries.last_document || keys.last_document < queries.first_document) return Visible::NONE;
  const bool one_document = keys.first_document == keys.last_document && keys.first_document == queries.first_document && keys.first_document == queries.last_document;
  return one_document && keys.last_position <= queries.first_position ? Visible::ALL : Visible::SOME;
}

/// Positions and documents of the tokens of one side; without documents all are in document 0.
struct Tokens {
  const Tensor &positions, &documents;
  int32_t position(int64_t b, int64_t t) const { return positions.as<int32_t>()[b * positions.strides[0] + t * positions.strides[1]]; }
  int32_t document(int64_t b, int64_t t) const { return present(documents) ? documents.as<int32_t>()[b * documents.strides[0] + t * documents.strides[1]] : 0; }
};

/// The queries of a block in lanes, compared with the keys of a block one by one. Missing keys are hidden by position, missing queries see nothing.
template <class real>
struct Mask {
  using tile = Tile<real>;
  ivec<real> query_position[tile::VECTORS], query_document[tile::VECTORS];
  int32_t vector_last[tile::VECTORS], key_position[tile::KEYS], key_document[tile::KEYS];
  int first[tile::KEYS / tile::GROUP];  // query vectors before this one see none of the group's keys
  Range queries;

  void set_queries(const Tokens& tokens, int64_t b, int64_t begin, int64_t count) {
    queries = Range();
    for (int v = 0; v < tile::VECTORS; v++) {
      vector_last[v] = INT32_MIN;
      for (int l = 0; l < LANES<real>; l++) {
        const int64_t t = v * LANES<real> + l;
        query_position[v][l] = INT32_MIN, query_document[v][l] = -1;
        if (t >= count) continue;
        const int32_t position = tokens.position(b, begin + t), document = tokens.document(b, begin + t);
        query_position[v][l] = position, query_document[v][l] = document;
        vector_last[v] = std::max(vector_last[v], position);
        queries.add(position, document);
      }
    }
  }
  void see_all() { std::fill(first, first + tile::KEYS / tile::GROUP, 0); }
  void set_keys(const Tokens& tokens, int64_t b, int64_t begin, int64_t count) {
    for (int g = 0; g < tile::KEYS / tile::GROUP; g++) {
      int32_t earliest = INT32_MAX;
      for (int k = g * tile::GROUP; k < (g + 1) * tile::GROUP; k++) {
        key_position[k] = k < count ? tokens.position(b, begin + k) : INT32_MAX;
        key_document[k] = k < count ? tokens.document(b, begin + k) : 0;
        earliest = std::min(earliest, key_position[k]);
      }
      first[g] = 0;
      while (first[g] < tile::VECTORS && earliest > vector_last[first[g]]) first[g]++;
    }
  }
  TITAN_INLINE vec<real> operator()(vec<real> score, int key, int v) const {
    const ivec<real> seen = (query_position[v] >= integer<real>(key_position[key])) & (query_document[v] == integer<real>(key_document[key]));
    return seen ? score : splat(-std::numeric_limits<real>::infinity());
  }
};

/// The operands that forward and backward have in common, found from the place of q_table in the list.
struct Heads {
  const Tensor &q, &k, &v, &q_table, &k_table;
  const Tokens queries, keys;
  const int64_t B, T, S, H, G, K, P, padded_keys;

  Heads(const Call& call, int q_table_at)
      : q(call[0]), k(call[1]), v(call[2]), q_table(call[q_table_at]), k_table(call[q_table_at + 1]),
        queries{call[q_table_at + 2], call[q_table_at + 4]}, keys{call[q_table_at + 3], call[q_table_at + 5]},
        B(q.dims[0]), T(q.dims[1]), S(k.dims[1]), H(q.dims[2]), G(k.dims[2]), K(q.dims[3]), P(round_up(K, 16)), padded_keys(round_up(S, BLOCK_KEYS)) {}

  template <class real>
  static real* row(const Tensor& x, int64_t b, int64_t t, int64_t h) {
    return x.as<real>() + b * x.strides[0] + t * x.strides[1] + h * x.strides[2];
  }
  template <class real>
  static const real* angles(const Tensor& table, int64_t b, int64_t t) {
    return present(table) ? table.as<real>() + b * table.strides[0] + t * table.strides[1] : nullptr;
  }
  /// Keys (rotated) and values of one head, padded with zeros to whole blocks, and the range of each block.
  template <class real>
  void load_keys(int64_t b, int64_t g, real* keys_SP, real* values_SP, Range* ranges) const {
    for (int64_t s = 0; s < S; s++) {
      if (s + AHEAD < S) prefetch(row<real>(k, b, s + AHEAD, g), K), prefetch(row<real>(v, b, s + AHEAD, g), K);
      load_head(keys_SP + s * P, row<real>(k, b, s, g), angles<real>(k_table, b, s), K, P, real(1));
      load_head<real>(values_SP + s * P, row<real>(v, b, s, g), nullptr, K, P, real(1));
    }
    std::fill(keys_SP + S * P, keys_SP + padded_keys * P, real(0));
    std::fill(values_SP + S * P, values_SP + padded_keys * P, real(0));
    for (int64_t s = 0; s < padded_keys; s += BLOCK_KEYS) {
      Range& range = ranges[s / BLOCK_KEYS] = Range();
      for (int64_t i = s; i < std::min(s + BLOCK_KEYS, S); i++) range.add(keys.position(b, i), keys.document(b, i));
      if (s + BLOCK_KEYS > S) range.last_position = INT32_MAX;  // a block with missing keys is never seen whole
    }
  }
};

/// Complains about the operands in common; `check` has the names.
inline void check_heads(Check& check, const Call& call, DType real, int q_table_at) {
  const int64_t B = check.dim(0, 0), T = check.dim(0, 1), H = check.dim(0, 2), K = check.dim(0, 3), S = check.dim(1, 1), G = check.dim(1, 2);
  check.operand(0, real, {-1, -1, -1, -1}).operand(1, real, {B, -1, -1, K}).operand(2, real, {B, S, G, K}).rows(0).rows(1).rows(2);
  check.operand(q_table_at + 2, DType::i32, {B, T}).operand(q_table_at + 3, DType::i32, {B, S});
  if (!check.ok()) return;
  check.require(present(call[q_table_at]) == present(call[q_table_at + 1]), "only one of q_table and k_table is given; expected: both or neither");
  check.require(present(call[q_table_at + 4]) == present(call[q_table_at + 5]), "only one of q_documents and k_documents is given; expected: both or neither");
  if (check.ok() && present(call[q_table_at])) check.operand(q_table_at, real, {B, T, K}).operand(q_table_at + 1, real, {B, S, K}).rows(q_table_at).rows(q_table_at + 1);
  if (check.ok() && present(call[q_table_at + 4])) check.operand(q_table_at + 4, DType::i32, {B, T}).operand(q_table_at + 5, DType::i32, {B, S});
  check.require(K > 0 && K % 2 == 0 && K <= MOST_HEAD_SIZE, "the head size is " + std::to_string(K) + "; expected: even, 2 to " + std::to_string(MOST_HEAD_SIZE));
  check.require(G > 0 && H % G == 0, "there are " + std::to_string(H) + " query heads for " + std::to_string(G) + " key heads; expected: a multiple");
}

}  // namespace titan::cpu
