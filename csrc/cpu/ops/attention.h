// What attention's forward and backward share: the product in registers and the numbers it takes, heads in memory, and who sees whom.
// Letters: B batch, T queries, S keys, H query heads, G key/value heads, K head size (P: padded to a multiple of 16 with zeros).
//
// Queries lie in SIMD lanes. A tile is KEYS keys by QUERIES queries; S^T[key, query] = K Q^T has keys as rows of scalars and queries as rows
// of vectors, so that maximum, exponential and sum over keys are vertical, and every product is the one `product` below, or on tiles (attention_tiles.h).
//
// With bf16 products (the attribute bf16) a unit of two numbers takes the place of a number, which halves the summed index. Which two, the
// summed index says: neighbours of the head for the scores and their gradients, two keys for o and dq, two queries for dk and dv.
#pragma once
#include <algorithm>
#include <limits>

#include "../check.h"
#include "../pairs.h"
#include "../simd.h"
#include "../storage.h"

namespace titan::cpu::inline TITAN_LEVEL {

template <class real>
struct Tile {
  static constexpr int VECTORS = MANY_REGISTERS ? 4 : 3;  // ROWS x VECTORS sums fill the registers
  static constexpr int ROWS = 4, QUERIES = VECTORS * LANES<real>, KEYS = 64;
  static constexpr int GROUP = 16;  // keys that share one decision on which query vectors to leave out
};
constexpr int64_t MOST_HEAD_SIZE = 256, BLOCK_KEYS = 64, MOST_QUERIES = 64;

// ---- the numbers that are multiplied ----
// A format says how operands of a product lie in scratch. A unit is what one multiply-add takes of each: PAIR neighbours along the summed index.

/// f32 or f64 as they are.
template <class T>
struct Exact {
  using storage = T;  // in memory
  using real = T;     // of sums
  using number = T;   // of operands
  using unit = T;
  static constexpr int PAIR = 1;  // numbers in a unit
  static constexpr bool ROUNDS = false;
  static TITAN_INLINE vec<real> rounded(vec<real> x) { return x; }
  static TITAN_INLINE void put(number* to, vec<real> x) { store(to, x); }
  static TITAN_INLINE void put_unit(unit* to, const vec<real> (&x)[1]) { store(to, x[0]); }
  static TITAN_INLINE vec<real> load_units(const unit* p) { return load(p); }
  static TITAN_INLINE vec<real> splat_unit(const unit* p) { return splat(*p); }
  static TITAN_INLINE vec<real> multiply_add(vec<real> sum, vec<real> a, vec<real> b) { return sum + a * b; }
};
#ifdef TITAN_MULTIPLIES_BF16
/// Rounded to bf16; one instruction multiplies a pair with a pair and adds both products to an f32.
struct Rounded {
  struct Pair {
    bf16 first, second;
  };
  using storage = mixed;
  using real = float;
  using number = bf16;
  using unit = Pair;
  static constexpr int PAIR = 2;
  static constexpr bool ROUNDS = true;
  static TITAN_INLINE vec<real> rounded(vec<real> x) { return round_bf16<float>(x); }
  static TITAN_INLINE void put(number* to, vec<real> x) { store(to, x); }
  /// Lanes (x[0], x[1]) side by side.
  static TITAN_INLINE void put_unit(unit* to, const vec<real> (&x)[2]) { store(reinterpret_cast<float*>(to), pairs_of(x[0], x[1])); }
  static TITAN_INLINE vec<real> load_units(const unit* p) { return load(reinterpret_cast<const float*>(p)); }
  static TITAN_INLINE vec<real> splat_unit(const unit* p) { return (vec<real>)splat_integer<float>(__builtin_bit_cast(int32_t, *p)); }
  static TITAN_INLINE vec<real> multiply_add(vec<real> sum, vec<real> a, vec<real> b) { return add_products(sum, a, b); }
};
#else
/// Rounded to bf16 at the same places as with bf16 instructions, multiplied as f32.
struct Rounded : Exact<float> {
  using storage = mixed;
  static constexpr bool ROUNDS = true;
  static TITAN_INLINE vec<float> rounded(vec<float> x) { return round_bf16<float>(x); }
  static TITAN_INLINE void put(float* to, vec<float> x) { store(to, round_bf16<float>(x)); }
  static TITAN_INLINE void put_unit(float* to, const vec<float> (&x)[1]) { store(to, round_bf16<float>(x[0])); }
};
#endif

/// Rows of reals become rows of units, in place: PAIR rows are one.
template <class F>
TITAN_INLINE void pack_rows(typename F::real* rows, int64_t count, int64_t columns) {
  using real = typename F::real;
  if constexpr (F::ROUNDS)
    for (int64_t i = 0; i < count; i += F::PAIR)
      for (int64_t c = 0; c < columns; c += LANES<real>) {
        vec<real> x[F::PAIR];
        for (int r = 0; r < F::PAIR; r++) x[r] = load(rows + (i + r) * columns + c);
        F::put_unit(reinterpret_cast<typename F::unit*>(rows) + i / F::PAIR * columns + c, x);
      }
}

/// end(m, v, begin(m, v) + sum over k < depth of a[m, k] b[k, v]) for M rows of units a (any strides) and N vectors of b's rows.
template <class F, int M, int N, class Begin, class End>
TITAN_INLINE void product(const typename F::unit* a, int64_t a_row, int64_t a_depth, const typename F::unit* b, int64_t b_depth, int64_t depth, Begin begin, End end) {
  using real = typename F::real;
  vec<real> c[M][N];
#pragma GCC unroll 16
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) c[m][v] = begin(m, v);
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; k++) {
    vec<real> row[N];
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) row[v] = in_register(F::load_units(b + k * b_depth + v * LANES<real>));
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
      const vec<real> x = F::splat_unit(a + m * a_row + k * a_depth);
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) c[m][v] = F::multiply_add(c[m][v], x, row[v]);
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

// ---- heads in memory ----

/// One head of a sequence: a row of K elements per token, far apart, where no hardware prefetcher follows.
template <class S>
struct Head {
  Row<S> first;
  int64_t step, size, tokens;  // bytes from token to token, bytes of a row

  Head(const Tensor& x, int64_t b, int64_t h)
      : first(x, b * x.strides[0] + h * x.strides[2]), step(x.strides[1] * int64_t(size_of(x.dtype))), size(x.dims[3] * int64_t(size_of(x.dtype))), tokens(x.dims[1]) {}
  TITAN_INLINE Row<S> operator[](int64_t t) const {
    Row<S> row = first;
    row.data = reinterpret_cast<decltype(row.data)>(reinterpret_cast<char*>(row.data) + t * step);
    return row;
  }
  /// Asks for the row of a token well ahead of t.
  TITAN_INLINE void prefetch(int64_t t) const {
    constexpr int64_t AHEAD = 16;
    const char* row = reinterpret_cast<const char*>(first.data) + (t + AHEAD) * step;
    for (int64_t byte = 0; byte < size && t + AHEAD < tokens; byte += 64) __builtin_prefetch(row + byte);
  }
};
/// The rows of a rotary table for one sequence; null where there is none.
template <class real>
struct Angles {
  const real* first;
  int64_t step;

  Angles(const Tensor& table, int64_t b) : first(present(table) ? table.as<real>() + b * table.strides[0] : nullptr), step(present(table) ? table.strides[1] : 0) {}
  TITAN_INLINE const real* operator[](int64_t t) const { return first + t * step; }
};

/// to[0..P) = factor * from[0..K), turned by a row of the rotary table if there is one, then zeros.
template <class F>
TITAN_INLINE void load_head(typename F::real* to, Row<typename F::storage> from, const typename F::real* table, int64_t K, int64_t P, typename F::real factor) {
  using real = typename F::real;
  for_lanes<real>(K, [&](int64_t k, int64_t lanes) {
    vec<real> x = from.load(k, lanes);
    if (table) x = rotate<real>(x, load(table + k, lanes), 1);
    store(to + k, x * factor);
  });
  for (int64_t k = round_up(K, LANES<real>); k < P; k += LANES<real>) store(to + k, vec<real>{});
}
/// to[0..K) = factor * from, turned back.
template <class S, class real>
TITAN_INLINE void store_head(Row<S> to, const real* from, const std::type_identity_t<real>* table, int64_t K, std::type_identity_t<real> factor) {
  for_lanes<real>(K, [&](int64_t k, int64_t lanes) {
    vec<real> x = load(from + k);
    if (table) x = rotate<real>(x, load(table + k, lanes), -1);
    to.store(k, x * factor, lanes);
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

/// Positions and documents of the tokens of a sequence; without positions they are 0, 1, 2 and so on, without documents all are in document 0.
struct Tokens {
  const int32_t *positions, *documents;
  int64_t step, document_step;

  Tokens(const Tensor& position, const Tensor& document, int64_t b)
      : positions(present(position) ? position.as<int32_t>() + b * position.strides[0] : nullptr), documents(present(document) ? document.as<int32_t>() + b * document.strides[0] : nullptr), step(positions ? position.strides[1] : 0),
        document_step(documents ? document.strides[1] : 0) {}
  int32_t position(int64_t t) const { return positions ? positions[t * step] : int32_t(t); }
  int32_t document(int64_t t) const { return documents ? documents[t * document_step] : 0; }
};

/// The queries of a block in lanes, compared with the keys of a block one by one. Missing keys are hidden by position, missing queries see nothing.
template <class real>
struct Mask {
  using tile = Tile<real>;
  ivec<real> query_position[tile::VECTORS], query_document[tile::VECTORS];
  int32_t vector_last[tile::VECTORS], key_position[tile::KEYS], key_document[tile::KEYS];
  int first[tile::KEYS / tile::GROUP];  // query vectors before this one see none of the group's keys
  Range queries;

  void set_queries(const Tokens& tokens, int64_t begin, int64_t count) {
    queries = Range();
    for (int v = 0; v < tile::VECTORS; v++) {
      vector_last[v] = INT32_MIN;
      query_position[v] = splat_integer<real>(INT32_MIN), query_document[v] = splat_integer<real>(-1);
      for (int l = 0; l < LANES<real> && v * LANES<real> + l < count; l++) {
        const int64_t t = v * LANES<real> + l;
        const int32_t position = tokens.position(begin + t), document = tokens.document(begin + t);
        query_position[v][l] = position, query_document[v][l] = document;
        vector_last[v] = std::max(vector_last[v], position);
        queries.add(position, document);
      }
    }
  }
  void see_all() { std::fill(first, first + tile::KEYS / tile::GROUP, 0); }
  void set_keys(const Tokens& tokens, int64_t begin, int64_t count) {
    for (int g = 0; g < tile::KEYS / tile::GROUP; g++) {
      int32_t earliest = INT32_MAX;
      for (int k = g * tile::GROUP; k < (g + 1) * tile::GROUP; k++) {
        key_position[k] = k < count ? tokens.position(begin + k) : INT32_MAX;
        key_document[k] = k < count ? tokens.document(begin + k) : 0;
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

/// Scores become exp2(score - most), PAIR keys a unit, which are added to `sum`; those of the query vectors before `first` are zero.
template <class F, int first, int V>
TITAN_INLINE void powers(const typename F::real* scores_JQ, typename F::unit* powers_JQ, int row, int rows, const vec<typename F::real> (&most)[V], vec<typename F::real> (&sum)[V]) {
  using real = typename F::real;
  constexpr int L = LANES<real>, Q = V * L;
  for (int j = row; j < row + rows; j += F::PAIR)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      vec<real> power[F::PAIR] = {};
      for (int i = 0; i < F::PAIR && v >= first; i++) {
        power[i] = exp2_quick<real>(load(scores_JQ + (j + i) * Q + v * L) - most[v]);
        sum[v] += power[i];
      }
      F::put_unit(powers_JQ + j / F::PAIR * Q + v * L, power);
    }
}

/// Which gradients a task of backward makes: all, or those of its queries, or those of its keys.
enum class Wanted { ALL, QUERIES, KEYS };

/// The operands that forward and backward have in common, found from the place of q_table in the list.
struct Heads {
  const Tensor &q, &k, &v, &q_table, &k_table, &q_positions, &k_positions, &q_documents, &k_documents;
  const int64_t B, T, S, H, G, K, P, padded_keys;

  Heads(const Call& call, int q_table_at)
      : q(call[0]), k(call[1]), v(call[2]), q_table(call[q_table_at]), k_table(call[q_table_at + 1]), q_positions(call[q_table_at + 2]), k_positions(call[q_table_at + 3]),
        q_documents(call[q_table_at + 4]), k_documents(call[q_table_at + 5]),
        B(q.dims[0]), T(q.dims[1]), S(k.dims[1]), H(q.dims[2]), G(k.dims[2]), K(q.dims[3]), P(round_up(K, 16)), padded_keys(round_up(S, BLOCK_KEYS)) {}

  Tokens queries(int64_t b) const { return Tokens(q_positions, q_documents, b); }
  Tokens keys(int64_t b) const { return Tokens(k_positions, k_documents, b); }
  /// Keys (rotated) and values of one head from `begin` to `end`, whole blocks of them, padded with zeros. The `_SP`
  /// are rows [S, P]; the `_pairs` [S / PAIR, P] hold units of neighbouring keys. What is null is not wanted.
  template <class F>
  void load_keys(int64_t b, int64_t g, int64_t begin, int64_t end, typename F::number* keys_SP, typename F::unit* key_pairs, typename F::number* values_SP, typename F::unit* value_pairs) const {
    using real = typename F::real;
    const auto put = [&](int64_t s, const real (&rows)[F::PAIR][MOST_HEAD_SIZE], typename F::number* to_SP, typename F::unit* to_pairs) {
      for (int64_t p = 0; p < P; p += LANES<real>) {
        vec<real> x[F::PAIR];
        for (int i = 0; i < F::PAIR; i++) x[i] = load(rows[i] + p);
        if (to_pairs) F::put_unit(to_pairs + s / F::PAIR * P + p, x);
        for (int i = 0; i < F::PAIR && to_SP; i++) F::put(to_SP + (s + i) * P + p, x[i]);
      }
    };
    const Head<typename F::storage> key_head(k, b, g), value_head(v, b, g);
    const Angles<real> angles(k_table, b);
    for (int64_t s = begin; s < end; s += F::PAIR) {
      alignas(64) real key[F::PAIR][MOST_HEAD_SIZE], value[F::PAIR][MOST_HEAD_SIZE];
      for (int i = 0; i < F::PAIR; i++) {
        key_head.prefetch(s + i), value_head.prefetch(s + i);
        if (s + i < S) {
          load_head<F>(key[i], key_head[s + i], angles[s + i], K, P, real(1));
          load_head<F>(value[i], value_head[s + i], nullptr, K, P, real(1));
        } else {
          std::fill(key[i], key[i] + P, real(0)), std::fill(value[i], value[i] + P, real(0));
        }
      }
      put(s, key, keys_SP, key_pairs), put(s, value, values_SP, value_pairs);
    }
  }
  /// The range of all queries of a sequence.
  Range query_range(int64_t b) const {
    const Tokens tokens = queries(b);
    Range range;
    for (int64_t t = 0; t < T; t++) range.add(tokens.position(t), tokens.document(t));
    return range;
  }
  /// The range of each block of keys from `begin` to `end`.
  void load_ranges(int64_t b, int64_t begin, int64_t end, Range* ranges) const {
    const Tokens tokens = keys(b);
    for (int64_t s = begin; s < end; s += BLOCK_KEYS) {
      Range& range = ranges[s / BLOCK_KEYS] = Range();
      for (int64_t i = s; i < std::min(s + BLOCK_KEYS, S); i++) range.add(tokens.position(i), tokens.document(i));
      if (s + BLOCK_KEYS > S) range.last_position = INT32_MAX;  // a block with missing keys is never seen whole
    }
  }
};

/// Complains about the operands in common, of which those in `stored` may be bf16; `check` has the names. The attributes are scale and bf16.
inline void check_heads(Check& check, const Call& call, DType real, int q_table_at, std::initializer_list<int> stored) {
  const int64_t B = check.dim(0, 0), T = check.dim(0, 1), H = check.dim(0, 2), K = check.dim(0, 3), S = check.dim(1, 1), G = check.dim(1, 2);
  check.real_or_bf16(0, real, {-1, -1, -1, -1}).real_or_bf16(1, real, {B, -1, -1, K}).real_or_bf16(2, real, {B, S, G, K}).rows(0).rows(1).rows(2);
  check.require(present(call[q_table_at + 2]) == present(call[q_table_at + 3]), "only one of q_positions and k_positions is given; expected: both or neither");
  if (check.ok() && present(call[q_table_at + 2])) check.operand(q_table_at + 2, DType::i32, {B, T}).operand(q_table_at + 3, DType::i32, {B, S});
  if (!check.ok()) return;
  check.require(present(call[q_table_at]) == present(call[q_table_at + 1]), "only one of q_table and k_table is given; expected: both or neither");
  check.require(present(call[q_table_at + 4]) == present(call[q_table_at + 5]), "only one of q_documents and k_documents is given; expected: both or neither");
  if (check.ok() && present(call[q_table_at])) check.operand(q_table_at, real, {B, T, K}).operand(q_table_at + 1, real, {B, S, K}).rows(q_table_at).rows(q_table_at + 1);
  if (check.ok() && present(call[q_table_at + 4])) check.operand(q_table_at + 4, DType::i32, {B, T}).operand(q_table_at + 5, DType::i32, {B, S});
  check.require(K > 0 && K % 2 == 0 && K <= MOST_HEAD_SIZE, "the head size is " + std::to_string(K) + "; expected: even, 2 to " + std::to_string(MOST_HEAD_SIZE));
  check.require(G > 0 && H % G == 0, "there are " + std::to_string(H) + " query heads for " + std::to_string(G) + " key heads; expected: a multiple");
  const int64_t rounds = call.attributes[1].i;
  check.require(rounds == 0 || rounds == 1, "bf16 is " + std::to_string(rounds) + "; expected: 0 or 1");
  check.require(rounds == 0 || real == DType::f32, std::string("bf16 is 1 and the operands are ") + name_of(real) + "; expected: f32 or bf16");
  for (int i : stored) check.require(rounds == 1 || call[i].dtype != DType::bf16, "operand " + std::to_string(i) + " is stored as bf16 and the attribute bf16 is 0; expected: 1, or f32 operands");
}

}  // namespace titan::cpu
