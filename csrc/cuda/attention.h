// What attention's forward and backward share: heads in memory, and, for products of f32 and f64, tiles of them in shared memory, who sees whom, and which
// thread has what. Products of bf16 are made on tensor cores: attention_mma.h.
// Letters as in csrc/cpu/ops/attention.h: B batch, T queries, S keys, H query heads, G key/value heads, K head size (P: padded with zeros).
//
// A tile is ROWS queries or keys by P numbers. A block has THREADS threads: LANES neighbours for each row of a tile, of which thread `lane` has every
// LANES-th pair of columns, and every LANES-th key (or query) of a row of scores. So what is summed over a row is summed by shuffles in one warp.
#pragma once
#include "device.h"

namespace titan::cuda {

constexpr double LOG2E = 1.4426950408889634, LN2 = 0.6931471805599453;

/// Tiles for heads of at most P numbers, of which `BYTES` fit in a tile.
template <class Real, int HEAD, int BYTES>
struct Tiles {
  using real = Real;
  static constexpr int P = HEAD, THREADS = 128;
  static constexpr int FIT = BYTES / (P * int(sizeof(real))), ROWS = FIT < 32 ? FIT : 32, LANES = THREADS / ROWS;
  static constexpr int PAIRS = P / 2 / LANES;                                // of columns, of a thread
  static constexpr int SCORES = ROWS < LANES ? 1 : ROWS / LANES;             // of a row, of a thread
  using Tile = real[ROWS][P + 1];
  using Scores = real[ROWS][ROWS + 1];
  static_assert(LANES <= WARP && PAIRS >= 1);

  static __device__ int row() { return int(threadIdx.x) / LANES; }
  static __device__ int lane() { return int(threadIdx.x) % LANES; }
  static __device__ int column(int pair) { return 2 * (lane() + pair * LANES); }
  /// The i-th column of scores that is this thread's; ROWS or more: there is none.
  static __device__ int other(int i) { return lane() + i * LANES; }
  template <class Join>
  static __device__ real join_row(real x, Join join) {
    for (int with = LANES / 2; with; with /= 2) x = join(x, __shfl_xor_sync(~0u, x, with));
    return x;
  }
};

/// A tensor [B, tokens, heads, K], or [B, heads, tokens] of numbers for each token.
template <class real>
struct Heads {
  Elements<real> elements;
  int64_t batch, token, head;
  Heads(const Tensor& t) : elements(t), batch(t.strides[0]), token(t.rank == 4 ? t.strides[1] : t.strides[2]), head(t.rank == 4 ? t.strides[2] : t.strides[1]) {}
  Heads(const Tensor& t, bool present) : elements(t), batch(present ? t.strides[0] : 0), token(present ? t.rank == 4 ? t.strides[1] : t.strides[2] : 0), head(present ? t.rank == 4 ? t.strides[2] : t.strides[1] : 0) {}
  __device__ Elements<real> at(int64_t b, int64_t token_at, int64_t h) const { return elements + (b * batch + token_at * token + h * head); }
};
/// What a token has: its position, which is its number where none are given, document, and angles, both of which may be absent.
template <class real>
struct Tokens {
  const int32_t *positions, *documents;
  const real* table;
  int64_t count, position_batch, position_stride, document_batch, document_stride, table_batch, table_row;
  Tokens(const Tensor& p, const Tensor& d, const Tensor& t, int64_t count)
      : positions(p.as<int32_t>()), documents(d.as<int32_t>()), table(t.as<real>()), count(count), position_batch(p.data ? p.strides[0] : 0), position_stride(p.data ? p.strides[1] : 0), document_batch(d.data ? d.strides[0] : 0),
        document_stride(d.data ? d.strides[1] : 0), table_batch(t.data ? t.strides[0] : 0), table_row(t.data ? t.strides[1] : 0) {}
  __device__ int32_t position(int64_t b, int64_t n) const { return positions ? positions[b * position_batch + n * position_stride] : int32_t(n); }
  __device__ int32_t document(int64_t b, int64_t n) const { return documents ? documents[b * document_batch + n * document_stride] : 0; }
  __device__ const real* angles(int64_t b, int64_t n) const { return table ? table + b * table_batch + n * table_row : nullptr; }
};

template <class real>
struct Attention {
  Heads<real> q, k, v;
  Tokens<real> queries, keys;
  int64_t B, T, S, H, G, K;
  real scale;
  /// `tokens` is the operand from which on tables, positions and documents come.
  Attention(const Call& call, int tokens)
      : q(call[0]), k(call[1]), v(call[2]), queries(call[tokens + 2], call[tokens + 4], call[tokens], call[0].dims[1]), keys(call[tokens + 3], call[tokens + 5], call[tokens + 1], call[1].dims[1]),
        B(call[0].dims[0]), T(call[0].dims[1]), S(call[1].dims[1]), H(call[0].dims[2]), G(call[1].dims[2]), K(call[0].dims[3]), scale(real(call.attributes[0].f)) {}
};

/// Rows [first, first + ROWS) of a head, times a factor, turned by the tokens' angles if there are any; zeros elsewhere.
template <class tiles, class real>
__device__ void load_tile(typename tiles::Tile& tile, const Attention<real>& c, const Heads<real>& heads, const Tokens<real>& tokens, bool turns, int64_t b, int64_t h, int64_t first, real factor) {
  for (int i = int(threadIdx.x); i < tiles::ROWS * tiles::P / 2; i += tiles::THREADS) {
    const int row = i / (tiles::P / 2), column = i % (tiles::P / 2) * 2;
    real x = 0, y = 0;
    if (first + row < tokens.count && column < c.K) {
      const Elements<real> from = heads.at(b, first + row, h);
      x = from[column], y = from[column + 1];
      if (const real* const angles = turns ? tokens.angles(b, first + row) : nullptr) {
        const real turned = x * angles[column] - y * angles[column + 1];
        y = x * angles[column + 1] + y * angles[column];
        x = turned;
      }
    }
    tile[row][column] = x * factor, tile[row][column + 1] = y * factor;
  }
}
/// The thread's columns of its row, times a factor, turned back if `turns`.
template <class tiles, class real>
__device__ void store_row(const Elements<real>& to, const real (&x)[tiles::PAIRS][2], int64_t K, real factor, const real* angles) {
  for (int pair = 0; pair < tiles::PAIRS; pair++) {
    const int column = tiles::column(pair);
    if (column >= K) continue;
    real first = x[pair][0] * factor, second = x[pair][1] * factor;
    if (angles) {
      const real turned = first * angles[column] + second * angles[column + 1];
      second = second * angles[column] - first * angles[column + 1];
      first = turned;
    }
    to.put(column, first), to.put(column + 1, second);
  }
}
/// sums += the thread's columns of weights[row] times the rows of a tile.
template <class tiles, class real>
__device__ void add_rows(real (&sums)[tiles::PAIRS][2], const typename tiles::Scores& weights, const typename tiles::Tile& tile) {
  for (int i = 0; i < tiles::ROWS; i++) {
    const real weight = weights[tiles::row()][i];
    for (int pair = 0; pair < tiles::PAIRS; pair++) {
      sums[pair][0] += weight * tile[i][tiles::column(pair)];
      sums[pair][1] += weight * tile[i][tiles::column(pair) + 1];
    }
  }
}
template <class tiles>
__device__ typename tiles::real dot(const typename tiles::Tile& a, int row, const typename tiles::Tile& b, int other, int64_t K) {
  typename tiles::real sum = 0;
  for (int p = 0; p < K; p++) sum += a[row][p] * b[other][p];
  return sum;
}

/// Where the attribute bf16 is 1.
void attend_on_tensor_cores(const Call& call);
void attend_backward_on_tensor_cores(const Call& call);

/// Calls f(Tiles) for the least that has heads of size K.
template <class real, int BYTES, class F>
void with_tiles(int64_t K, F f) {
  if (K <= 64) f(Tiles<real, 64, BYTES>());
  else if (K <= 128) f(Tiles<real, 128, BYTES>());
  else f(Tiles<real, 256, BYTES>());
}

/// The query of a thread's row, in a block's task: one head's tile of queries.
template <class tiles, class real>
struct Query {
  int64_t first, h, b, g, t;
  bool exists;
  int32_t position, document;
  __device__ static int64_t num_tasks(const Attention<real>& c) { return c.B * c.H * ((c.T + tiles::ROWS - 1) / tiles::ROWS); }
  __device__ Query(const Attention<real>& c, int64_t task) {
    const int64_t query_tiles = (c.T + tiles::ROWS - 1) / tiles::ROWS;
    first = task % query_tiles * tiles::ROWS, h = task / query_tiles % c.H, b = task / query_tiles / c.H, g = h / (c.H / c.G), t = first + tiles::row();
    exists = t < c.T;
    position = exists ? c.queries.position(b, t) : 0, document = exists ? c.queries.document(b, t) : 0;
  }
  /// Which of the thread's keys in the tile that begins there the query sees. @returns whether there is one.
  __device__ bool sees(const Attention<real>& c, int64_t begin, bool (&seen)[tiles::SCORES]) const {
    bool any = false;
    for (int i = 0; i < tiles::SCORES; i++) {
      const int64_t j = begin + tiles::other(i);
      seen[i] = exists && tiles::other(i) < tiles::ROWS && j < c.S && c.keys.position(b, j) <= position && c.keys.document(b, j) == document;
      any |= seen[i];
    }
    return any;
  }
};

}  // namespace titan::cuda
