// Backward's block on tiles: see attention_tiles.h, and attention_backward.cpp for what is computed.
#pragma once
#include "attention_tiles.h"

#if defined(__AMX_BF16__)
namespace titan::cpu::inline TITAN_LEVEL {

struct BackwardTiles : TileHeads {
  const Wanted wanted;
  const int64_t value_at;  // heads of 16 fill half of a tile's depth: a key and its value then share a row, from here on the value
  bf16 *keys_SP, *keys_PS, *values_SP, *p_JQ, *ds_JQ;  // keys_PS: of a block of keys behind those of another
  unit *q_PQ, *q_QP, *do_PQ, *do_QP;
  float *dkeys_SP, *dvalues_SP, *dq_PQ, *q_rows;
  float *scores_JQ, *dp_JQ;  // p and ds take their places
  Range* ranges;
  Mask<float> mask;
  vec<float> lse[V], delta[V];  // lse in base 2
  alignas(64) unit ds_pairs[J / 2 * Q];
  Tiles tiles;

  BackwardTiles(const Heads& h, Wanted w, char* scratch) : TileHeads(h), wanted(w), value_at(P < TILE_DEPTH ? P : 0) {
    float* next = reinterpret_cast<float*>(scratch);
    const auto take = [&](int64_t floats) {
      float* const taken = next;
      next += floats;
      return taken;
    };
    const int64_t S = h.padded_keys;
    keys_SP = values_SP = reinterpret_cast<bf16*>(take(S * P32 / 2));
    if (!value_at) values_SP = reinterpret_cast<bf16*>(take(S * P32 / 2));
    keys_PS = reinterpret_cast<bf16*>(take(S * P / 2));
    dkeys_SP = take(S * P), dvalues_SP = take(S * P);
    q_rows = next;  // for dq at the end, when the queries are no longer needed
    q_PQ = reinterpret_cast<unit*>(take(Q * P32 / 2)), do_PQ = reinterpret_cast<unit*>(take(Q * P32 / 2));
    q_QP = reinterpret_cast<unit*>(take(Q * P / 2)), do_QP = reinterpret_cast<unit*>(take(Q * P / 2));
    dq_PQ = take(Q * P);
    scores_JQ = take(J * Q), p_JQ = reinterpret_cast<bf16*>(scores_JQ), dp_JQ = take(J * Q), ds_JQ = reinterpret_cast<bf16*>(dp_JQ);
    ranges = reinterpret_cast<Range*>(next);
  }

  void load_keys(int64_t b, int64_t g, int64_t first, int64_t end) {
    const Head<mixed> key_head(heads.k, b, g), value_head(heads.v, b, g);
    const Angles<float> angles(heads.k_table, b);
    const int64_t width = value_at ? P : P32;
    for (int64_t begin = first; begin < end; begin += J) {
      for (int64_t s = begin; s < begin + J; s++) {
        bf16 *const key = keys_SP + s * P32, *const value = values_SP + s * P32;
        if (s >= heads.S) {
          clear_row(key), clear_row(value);
          continue;
        }
        key_head.prefetch(s), value_head.prefetch(s);
        load_row(key, key_head[s], angles[s], 1, width);
        load_row(value + value_at, value_head[s], nullptr, 1, width);
      }
      transpose_rows(keys_SP + begin * P32, q_QP, keys_PS + begin * P);
    }
    heads.load_ranges(b, first, end, ranges);
  }

  void load_queries(const Tensor& o, const Tensor& lse_BHT, const Tensor& grad, int64_t b, int64_t h, int64_t begin, int64_t count, float scale) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const Head<mixed> q(heads.q, b, h), output(o, b, h), doutput(grad, b, h);
    const Angles<float> angles(heads.q_table, b);
    const float* logarithms = lse_BHT.as<float>() + b * lse_BHT.strides[0] + h * lse_BHT.strides[1];
    bf16* const rows = reinterpret_cast<bf16*>(dq_PQ);
    std::fill(rows, rows + Q * P32, bf16(0));
    for (int64_t i = 0; i < count; i++) {
      q.prefetch(begin + i);
      load_row(rows + i * P32, q[begin + i], angles[begin + i], scale, P);
    }
    transpose_units(rows, Q, P32 / 2, q_PQ);
    pair_rows(rows, q_QP);
    std::fill(rows, rows + Q * P32, bf16(0));
    for (int64_t i = 0; i < Q; i++) {
      float &base2 = lse[i / L][i % L], &dot = delta[i / L][i % L];
      base2 = infinity, dot = 0;  // exp2(score - inf) = 0: neither a missing query nor one that sees no key leaves a trace
      if (i >= count) continue;
      const int64_t t = begin + i;
      bf16* const row = rows + i * P32 + value_at;
      output.prefetch(t), doutput.prefetch(t);
      load_row(row, doutput[t], nullptr, 1, P);
      vec<float> products = {};
      for_lanes<float>(heads.K, [&](int64_t k, int64_t lanes) { products += output[t].load(k, lanes) * load(row + k); });
      dot = sum_lanes<float>(products);
      const float natural = logarithms[t * lse_BHT.strides[2]];
      if (natural != -infinity) base2 = natural * float(LOG2E);
    }
    transpose_units(rows, Q, P32 / 2, do_PQ);
    pair_rows(rows + value_at, do_QP);
    std::fill(dq_PQ, dq_PQ + P * Q, 0.f);
  }

  /// p and ds of rows [row, row + rows) of the tile, for the query vectors from `first` on; before, they are zero.
  template <int first, bool masked> TITAN_INLINE void gradients(int row, int rows) {
    for (int j = row; j < row + rows; j += 2) {
      vec<float> p[2][V] = {}, ds[2][V] = {};  // two whole rows before any is written: places overlap
#pragma GCC unroll 2
      for (int i = 0; i < 2; i++)
#pragma GCC unroll 4
        for (int v = first; v < V; v++) {
          const int64_t at = (j + i) * Q + v * L;
          vec<float> score = load(scores_JQ + at);
          if constexpr (masked) score = mask(score, j + i, v);
          p[i][v] = exp2_quick<float>(score - lse[v]);
          ds[i][v] = p[i][v] * (load(dp_JQ + at) - delta[v]);
        }
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) {
        for (int i = 0; i < 2; i++) store(p_JQ + (j + i) * Q + v * L, p[i][v]), store(ds_JQ + (j + i) * Q + v * L, ds[i][v]);
        const vec<float> both[2] = {ds[0][v], ds[1][v]};
        Rounded::put_unit(ds_pairs + j / 2 * Q + v * L, both);
      }
    }
  }

  /// The loaded queries with keys from `first_key` to `end_key`: adds to dK and dV, and to dq.
  void attend(int64_t b, int64_t first_key, int64_t end_key) {
    constexpr int64_t DEPTHS = Q / TILE_DEPTH, ROWS = J / TILE_ROWS;
    const int64_t columns = P / TILE_ROWS;
    for (int64_t begin = first_key; begin < end_key; begin += J) {
      const Visible seen = visible(ranges[begin / J], mask.queries);
      if (seen == Visible::NONE) continue;
      multiply_heads(keys_SP + begin * P32, q_PQ, scores_JQ);
      multiply_heads(values_SP + begin * P32, do_PQ, dp_JQ);
      if (seen == Visible::ALL) {
        gradients<0, false>(0, J);
      } else {
        mask.set_keys(heads.keys(b), begin, std::min<int64_t>(J, heads.S - begin));
        for (int g = 0; g < J / tile::GROUP; g++) with_constant<V + 1>(mask.first[g], [&](auto first) { gradients<first, true>(g * tile::GROUP, tile::GROUP); });
      }
      if (wanted != Wanted::QUERIES) {
        multiply_tiles(rows(p_JQ, Q), units(do_QP, P), DEPTHS, dvalues_SP + begin * P, P, ROWS, columns, true);
        multiply_tiles(rows(ds_JQ, Q), units(q_QP, P), DEPTHS, dkeys_SP + begin * P, P, ROWS, columns, true);
      }
      if (wanted != Wanted::KEYS) multiply_tiles(rows(keys_PS + begin * P, J), units(ds_pairs, Q), J / TILE_DEPTH, dq_PQ, Q, columns, Q / TILE_ROWS, true);
    }
  }
};

}  // namespace titan::cpu::inline TITAN_LEVEL
#endif
