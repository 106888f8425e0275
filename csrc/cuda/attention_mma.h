// What attention's kernels on tensor cores share: tiles of rounded rows in shared memory, products of tiles in registers, and who sees whom.
//
// A block of WARPS warps has a tile of 16 WARPS rows (queries, or keys where dk and dv are made), 16 of each warp, and takes tile after tile of OTHERS
// others through shared memory. Scores of 16 rows with OTHERS others, and sums of 16 rows by P columns, are fragments of mma.h: a thread has numbers of
// two rows, g and g + 8, and what is joined over a row is joined over the four neighbouring lanes that share it.
#pragma once
#include "attention.h"
#include "mma.h"

namespace titan::cuda {

template <int HEAD, int NUM_WARPS, int NUM_OTHERS>
struct MmaTiles {
  static constexpr int P = HEAD, WARPS = NUM_WARPS, THREADS = WARPS * WARP, ROWS = WARPS * 16, OTHERS = NUM_OTHERS;
  using Rows = SharedRows<P>;
  using Scores = Sums[OTHERS / 8];
  using Outputs = Sums[P / 8];
  using Weights = Fragment[OTHERS / 16];
  static_assert(OTHERS <= 64, "a bit of 32 for each score of a thread");

  static __device__ int first_row() { return int(threadIdx.x) / WARP * 16; }
  /// The thread's two rows of the tile.
  static __device__ int row(int which) { return first_row() + int(threadIdx.x) % WARP / 4 + which * 8; }
  /// The thread's two columns of a block of 8.
  static __device__ int column(int block, int which) { return block * 8 + int(threadIdx.x) % 4 * 2 + which; }
};

struct MmaAttention : Attention<float> {
  int width;  // K, up to a multiple of 16: columns that products take
  bool fours;  // rows of K may be loaded and stored in fours, and whole
  /// `heads`: what has rows of K besides q, k, v and tables.
  MmaAttention(const Call& call, int tokens, std::initializer_list<int> heads) : Attention(call, tokens), width(int((K + 15) / 16 * 16)), fours(K % 4 == 0) {
    for (int i : {0, 1, 2, tokens, tokens + 1}) fours &= Lanes({&call[i]}).aligned;
    for (int i : heads) fours &= Lanes({&call[i]}).aligned;
  }
};

template <class Join>
__device__ float join_quad(float x, Join join) {
  for (int with = 2; with; with /= 2) x = join(x, __shfl_xor_sync(~0u, x, with));
  return x;
}

/// ROWS rows of a head from `first` on into shared memory: turned by the tokens' angles where `turns`, times a factor, rounded; zeros beyond the last.
template <class tiles, int ROWS>
__device__ void load_rows(const typename tiles::Rows& to, const MmaAttention& c, const Heads<float>& heads, const Tokens<float>& tokens, bool turns, int64_t b, int64_t h, int64_t first, float factor) {
  const auto four = [&](const Elements<float>& from, int column, float (&x)[4]) {
    if (c.fours) return from.load(column, x);
    for (int i = 0; i < 4; i++) x[i] = column + i < c.K ? from[column + i] : 0;
  };
  TITAN_NO_UNROLL  // sums have the registers
  for (int i = int(threadIdx.x); i < ROWS * tiles::P / 4; i += tiles::THREADS) {
    const int row = i / (tiles::P / 4), column = i % (tiles::P / 4) * 4;
    if (column >= c.width) continue;
    float x[4] = {};
    if (first + row < tokens.count && column < c.K) {
      four(heads.at(b, first + row, h), column, x);
      if (const float* const angles = turns ? tokens.angles(b, first + row) : nullptr) {
        float angle[4];
        four({const_cast<float*>(angles), DType::f32}, column, angle);
        for (int pair = 0; pair < 4; pair += 2) {
          const float turned = x[pair] * angle[pair] - x[pair + 1] * angle[pair + 1];
          x[pair + 1] = x[pair] * angle[pair + 1] + x[pair + 1] * angle[pair];
          x[pair] = turned;
        }
      }
    }
    *reinterpret_cast<Pack<uint32_t, 2>*>(to.at(row, column)) = {{pack(x[0] * factor, x[1] * factor), pack(x[2] * factor, x[3] * factor)}};
  }
}

/// The thread's columns of one of its rows, times a factor, turned back by `angles` if there are any.
template <class tiles>
__device__ void store_sums(const Elements<float>& to, const typename tiles::Outputs& sums, int which, const MmaAttention& c, float factor, const float* angles) {
  TITAN_UNROLL
  for (int n = 0; n < tiles::P / 8; n++) {
    const int column = tiles::column(n, 0);
    if (column >= c.K) continue;
    float x = sums[n][2 * which] * factor, y = sums[n][2 * which + 1] * factor;
    if (angles) {
      const float turned = x * angles[column] + y * angles[column + 1];
      y = y * angles[column] - x * angles[column + 1];
      x = turned;
    }
    if (!c.fours) to.put(column, x), to.put(column + 1, y);
    else if (to.dtype == DType::bf16) *reinterpret_cast<uint32_t*>(to.as<bf16>() + column) = pack(x, y);
    else *reinterpret_cast<Pack<float, 2>*>(to.as<float>() + column) = {{x, y}};
  }
}

/// scores = the warp's 16 rows of a, times rows of b: dot products.
template <class tiles>
__device__ void multiply_rows(typename tiles::Scores& scores, const typename tiles::Rows& a, const typename tiles::Rows& b, int width) {
  TITAN_UNROLL
  for (int n = 0; n < tiles::OTHERS / 8; n++) scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0;
  TITAN_NO_UNROLL
  for (int k = 0; k < width; k += 16) {
    Fragment x;
    a.load_a(x, tiles::first_row(), k);
    TITAN_UNROLL
    for (int n = 0; n < tiles::OTHERS; n += 16) {
      Fragment y;
      b.load_b_of_rows(y, n, k);
      multiply_add(scores[n / 8], x, y[0], y[1]);
      multiply_add(scores[n / 8 + 1], x, y[2], y[3]);
    }
  }
}
/// sums += weights, rounded, times rows of a tile.
template <class tiles>
__device__ void add_weighted(typename tiles::Outputs& sums, const typename tiles::Scores& weights, const typename tiles::Rows& rows, int width) {
  typename tiles::Weights rounded;
  TITAN_UNROLL
  for (int j = 0; j < tiles::OTHERS / 16; j++) {
    const Sums &low = weights[2 * j], &high = weights[2 * j + 1];
    rounded[j][0] = pack(low[0], low[1]), rounded[j][1] = pack(low[2], low[3]), rounded[j][2] = pack(high[0], high[1]), rounded[j][3] = pack(high[2], high[3]);
  }
  TITAN_UNROLL
  for (int p = 0; p < tiles::P; p += 16) {
    if (p >= width) continue;
    TITAN_UNROLL
    for (int j = 0; j < tiles::OTHERS / 16; j++) {
      Fragment y;
      rows.load_b(y, 16 * j, p);
      multiply_add(sums[p / 8], rounded[j], y[0], y[1]);
      multiply_add(sums[p / 8 + 1], rounded[j], y[2], y[3]);
    }
  }
}

/// The tokens of a thread's two rows: queries among keys, or keys among queries.
template <class tiles, bool are_queries>
struct RowTokens {
  int64_t b;
  int32_t position[2], document[2];
  bool exists[2];
  __device__ RowTokens(const MmaAttention& c, int64_t b, int64_t first) : b(b) {
    const Tokens<float>& tokens = are_queries ? c.queries : c.keys;
    for (int i = 0; i < 2; i++) {
      const int64_t token = first + tiles::row(i);
      exists[i] = token < tokens.count;
      position[i] = exists[i] ? tokens.position(b, token) : 0, document[i] = exists[i] ? tokens.document(b, token) : 0;
    }
  }
  /// Of the thread's scores in the tile of others that begins there, those of queries that see the key: bit 4 n + i for scores[n][i].
  __device__ uint32_t seen(const MmaAttention& c, int64_t begin) const {
    const Tokens<float>& others = are_queries ? c.keys : c.queries;
    uint32_t seen = 0;
    TITAN_UNROLL
    for (int n = 0; n < tiles::OTHERS / 8; n++)
      TITAN_UNROLL
      for (int i = 0; i < 2; i++) {
        const int64_t other = begin + tiles::column(n, i);
        if (other >= others.count) continue;
        const int32_t at = others.position(b, other), of = others.document(b, other);
        TITAN_UNROLL
        for (int which = 0; which < 2; which++) seen |= uint32_t(exists[which] && of == document[which] && (are_queries ? at <= position[which] : position[which] <= at)) << (4 * n + 2 * which + i);
      }
    return seen;
  }
};

}  // namespace titan::cuda
