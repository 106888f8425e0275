// Attention on the processor's tiles (AMX): what forward and backward share, and forward's block. A product takes 64 keys and 64 queries at once,
// by way of memory in L1, and vectors do the rest: the letters, layouts and steps are those of attention.h and attention.cpp. Left operands of
// tiles are rows of numbers, right ones rows of units; so what is a summed index of a left one lies in rows, keys and values transposed.
#pragma once
#include "../tiles.h"
#include "attention.h"

#if defined(__AMX_BF16__)
namespace titan::cpu::inline TITAN_LEVEL {

/// Heads as left operands are padded to P32, a multiple of TILE_DEPTH, as outputs to P.
struct TileHeads {
  using real = float;
  using storage = mixed;
  using unit = Rounded::unit;
  using tile = Tile<float>;
  static constexpr int V = tile::VECTORS, L = LANES<float>, Q = tile::QUERIES, J = tile::KEYS;
  const Heads& heads;
  const int64_t P, P32;

  explicit TileHeads(const Heads& h) : heads(h), P(h.P), P32(round_up(h.K, TILE_DEPTH)) {}

  /// A row of numbers: factor * from, turned if there is a table, rounded; then zeros up to `width`.
  TITAN_INLINE void load_row(bf16* to, Row<mixed> from, const float* table, float factor, int64_t width) const {
    for_lanes<float>(heads.K, [&](int64_t k, int64_t lanes) {
      vec<float> x = from.load(k, lanes);
      if (table) x = rotate<float>(x, load(table + k, lanes), 1);
      store(to + k, x * factor);
    });
    for (int64_t k = round_up(heads.K, L); k < width; k += L) store(to + k, vec<float>{});
  }
  TITAN_INLINE void clear_row(bf16* to) const { std::fill(to, to + P32, bf16(0)); }
  /// Rows [64, P32] become rows of units [32, P]: two rows are one.
  void pair_rows(const bf16* rows, unit* to) const {
    for (int64_t i = 0; i < J / 2; i++)
      for (int64_t p = 0; p < P; p += L) {
        const words first = (words)load(rows + 2 * i * P32 + p), second = (words)load(rows + (2 * i + 1) * P32 + p);
        store(reinterpret_cast<float*>(to + i * P + p), (vec<float>)(first >> 16 | second));
      }
  }
  /// Rows of units become columns.
  static void transpose_units(const void* from, int64_t rows, int64_t columns, void* to) { transpose(static_cast<const float*>(from), rows, columns, static_cast<float*>(to)); }
  /// Rows [64, P32] become [P, 64].
  void transpose_rows(const bf16* rows, unit* pairs, bf16* to) const {
    pair_rows(rows, pairs);
    transpose_units(pairs, J / 2, P, to);
  }

  TileOperand rows(const bf16* data, int64_t length) const { return {data, TILE_ROWS * length * 2, TILE_ROW_BYTES, length * 2}; }
  TileOperand units(const unit* data, int64_t length) const { return {data, TILE_ROW_BYTES, TILE_ROWS * length * 4, length * 4}; }
  /// scores[64, 64] = keys queries, or any other product over the head.
  TITAN_INLINE void multiply_heads(const bf16* rows_JP, const unit* units_PQ, float* to_JQ) const {
    multiply_tiles(rows(rows_JP, P32), units(units_PQ, Q), P32 / TILE_DEPTH, to_JQ, Q, J / TILE_ROWS, Q / TILE_ROWS, false);
  }
};

struct ForwardTiles : TileHeads {
  bf16 *keys_SP, *values_PS;  // values of a block of keys behind those of another
  unit *queries_PQ, *powers_JQ;
  float *query_columns, *output_PQ, *scores_JQ;
  Range* ranges;
  Mask<float> mask;
  Tiles tiles;

  ForwardTiles(const Heads& h, char* scratch) : TileHeads(h) {
    float* next = reinterpret_cast<float*>(scratch);
    keys_SP = reinterpret_cast<bf16*>(next), next += h.padded_keys * P32 / 2;
    values_PS = reinterpret_cast<bf16*>(next), next += h.padded_keys * P / 2;
    query_columns = next, queries_PQ = reinterpret_cast<unit*>(next), next += Q * P;
    output_PQ = next, next += Q * P;
    scores_JQ = next, powers_JQ = reinterpret_cast<unit*>(next), next += J * Q;  // in place
    ranges = reinterpret_cast<Range*>(next);
  }

  void load_keys(int64_t b, int64_t g) {
    const Head<mixed> key_head(heads.k, b, g), value_head(heads.v, b, g);
    const Angles<float> angles(heads.k_table, b);
    bf16* const values = reinterpret_cast<bf16*>(output_PQ);
    const Range queries = heads.query_range(b);
    heads.load_ranges(b, 0, heads.padded_keys, ranges);
    for (int64_t begin = 0; begin < heads.padded_keys; begin += J) {
      if (visible(ranges[begin / J], queries) == Visible::NONE) continue;
      for (int64_t s = begin; s < begin + J; s++) {
        bf16 *const key = keys_SP + s * P32, *const value = values + (s - begin) * P32;
        if (s >= heads.S) {
          clear_row(key), clear_row(value);
          continue;
        }
        key_head.prefetch(s), value_head.prefetch(s);
        load_row(key, key_head[s], angles[s], 1, P32);
        load_row(value, value_head[s], nullptr, 1, P32);
      }
      transpose_rows(values, queries_PQ, values_PS + begin * P);
    }
  }

  void load_queries(int64_t b, int64_t h, int64_t begin, int64_t count, float scale) {
    const Head<mixed> q(heads.q, b, h);
    const Angles<float> angles(heads.q_table, b);
    bf16* const rows = reinterpret_cast<bf16*>(output_PQ);
    for (int64_t i = 0; i < Q; i++) {
      if (i >= count) {
        clear_row(rows + i * P32);
        continue;
      }
      q.prefetch(begin + i);
      load_row(rows + i * P32, q[begin + i], angles[begin + i], scale, P32);
    }
    transpose_units(rows, Q, P32 / 2, queries_PQ);
    mask.set_queries(heads.queries(b), begin, count);
  }

  /// The maxima of rows [row, row + rows) of the scores, for the query vectors from `first` on; hides what is not seen.
  template <int first, bool masked> TITAN_INLINE void maxima(int row, int rows, vec<float> (&most)[V]) {
    for (int j = row; j < row + rows; j++)
#pragma GCC unroll 4
      for (int v = first; v < V; v++) {
        float* const at = scores_JQ + j * Q + v * L;
        vec<float> score = load(at);
        if constexpr (masked) store(at, score = mask(score, j, v));
        most[v] = larger(score, most[v]);
      }
  }

  /// Adds all keys for the loaded queries.
  void attend(int64_t b, vec<float> (&most)[V], vec<float> (&sum)[V]) {
    for (int64_t begin = 0; begin < heads.padded_keys; begin += J) {
      const Visible seen = visible(ranges[begin / J], mask.queries);
      if (seen == Visible::NONE) continue;
      multiply_heads(keys_SP + begin * P32, queries_PQ, scores_JQ);
      vec<float> before[V], rescale[V];
      for (int v = 0; v < V; v++) before[v] = most[v];
      if (seen == Visible::ALL) {
        maxima<0, false>(0, J, most);
      } else {
        mask.set_keys(heads.keys(b), begin, std::min<int64_t>(J, heads.S - begin));
        for (int g = 0; g < J / tile::GROUP; g++)
          with_constant<V + 1>(mask.first[g], [&](auto first) {
            if constexpr (first < V) maxima<first, true>(g * tile::GROUP, tile::GROUP, most);
          });
      }
      for (int v = 0; v < V; v++) rescale[v] = exp2_quick<float>(before[v] - most[v]), sum[v] *= rescale[v];
      if (seen == Visible::ALL) powers<Rounded, 0>(scores_JQ, powers_JQ, 0, J, most, sum);
      else
        for (int g = 0; g < J / tile::GROUP; g++) with_constant<V + 1>(mask.first[g], [&](auto first) { powers<Rounded, first>(scores_JQ, powers_JQ, g * tile::GROUP, tile::GROUP, most, sum); });
      for (int64_t p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) store(output_PQ + p * Q + v * L, load(output_PQ + p * Q + v * L) * rescale[v]);
      multiply_tiles(rows(values_PS + begin * P, J), units(powers_JQ, Q), J / TILE_DEPTH, output_PQ, Q, P / TILE_ROWS, Q / TILE_ROWS, true);
    }
  }
};

}  // namespace titan::cpu::inline TITAN_LEVEL
#endif
