// What attention's kernels on tensor cores share: tiles of rounded rows in shared memory, products of tiles in registers, and who sees whom.
//
// A block of WARPS warps has a tile of 16 WARPS rows (queries, or keys where dk and dv are made), 16 of each warp, and takes tile after tile of OTHERS
// others through shared memory: tiles of two kinds, such as keys and values, the next of which arrive while these are multiplied (`walk`). Rows that memory
// has as bf16, in words of 16 bytes, are copied by `cp.async`; where they have to be turned or scaled, the thread that copied them does it in place when
// they are there. All else is loaded through registers, for which a thread waits. Scores of 16 rows with OTHERS others, and sums of 16 rows by P columns,
// are fragments of mma.h: a thread has numbers of two rows, g and g + 8, and what is joined over a row is joined over the four neighbouring lanes that
// share it.
#pragma once
#include "attention.h"
#include "mma.h"

namespace titan::cuda {

/// `is_double`: there is room for two tiles of each kind.
template <int HEAD, int NUM_WARPS, int NUM_OTHERS, bool is_double>
struct MmaTiles {
  static constexpr int P = HEAD, WARPS = NUM_WARPS, THREADS = WARPS * WARP, ROWS = WARPS * 16, OTHERS = NUM_OTHERS;
  static constexpr bool DOUBLE = is_double;
  static constexpr int HELD = (DOUBLE ? 2 : 1) * OTHERS;  // rows of others of each kind
  using Rows = SharedRows<P>;
  using Scores = Sums[OTHERS / 8];
  using Outputs = Sums[P / 8];
  using Weights = Fragment[OTHERS / 16];
  static_assert(OTHERS <= 64, "a bit of 32 for each score of a thread");

  static __device__ int first_row() { return int(threadIdx.x / WARP * 16); }
  /// The thread's two rows of the tile.
  static __device__ int row(int which) { return first_row() + int(threadIdx.x % WARP / 4) + which * 8; }
  /// The thread's two columns of a block of 8.
  static __device__ int column(int block, int which) { return block * 8 + int(threadIdx.x % 4 * 2) + which; }
};

struct MmaAttention : Attention<float> {
  int width;  // K, up to a multiple of 16: columns that products take
  bool fours;  // rows of K may be loaded and stored in fours, and whole
  bool q_copied = false, k_copied = false, v_copied = false;
  /// `heads`: what has rows of K besides q, k, v and tables.
  MmaAttention(const Call& call, int tokens, std::initializer_list<int> heads)
      : Attention(call, tokens), width(int((K + 15) / 16 * 16)), fours(K % 4 == 0) {
    for (int i : {0, 1, 2, tokens, tokens + 1}) fours &= Lanes({&call[i]}).aligned;
    for (int i : heads) fours &= Lanes({&call[i]}).aligned;
    q_copied = is_copied(call[0]), k_copied = is_copied(call[1]), v_copied = is_copied(call[2]);
  }
  /// Whether rows of heads go into shared memory as they are stored, in words of 16 bytes. `fours` then holds, too.
  bool is_copied(const Tensor& heads) const { return fours && heads.dtype == DType::bf16 && K % 8 == 0 && Lanes({&heads}).aligned; }
};

template <class Join>
__device__ float join_quad(float x, Join join) {
  for (int with = 2; with; with /= 2) x = join(x, __shfl_xor_sync(~0u, x, with));
  return x;
}

/// Rows of heads on their way into shared memory: turned by their tokens' angles where `turns`, times a factor, rounded; zeros beyond the last.
struct Rounded {
  const MmaAttention& c;
  const Heads<float>& heads;
  bool is_copied;
  const Tokens<float>& tokens;
  bool turns;
  float factor;
  __device__ const float* angles(int64_t b, int64_t token) const { return turns ? tokens.angles(b, token) : nullptr; }
  /// Four neighbours of a row, changed.
  __device__ Pack<uint32_t, 2> change(float (&x)[4], const float (&angle)[4], bool turns) const {
    if (turns)
      for (int pair = 0; pair < 4; pair += 2) {
        const float turned = x[pair] * angle[pair] - x[pair + 1] * angle[pair + 1];
        x[pair + 1] = x[pair] * angle[pair + 1] + x[pair + 1] * angle[pair];
        x[pair] = turned;
      }
    return {{pack(x[0] * factor, x[1] * factor), pack(x[2] * factor, x[3] * factor)}};
  }
};

/// f(row, column) for the runs of EACH columns that are the thread's, of ROWS rows.
template <class tiles, int ROWS, int EACH, class F>
__device__ void for_runs(const MmaAttention& c, F f) {
  TITAN_NO_UNROLL  // sums have the registers
  for (int i = int(threadIdx.x); i < ROWS * tiles::P / EACH; i += tiles::THREADS)
    if (const int column = i % (tiles::P / EACH) * EACH; column < c.width) f(i / (tiles::P / EACH), column);
}
/// ROWS rows of a head from `first` on, under way into shared memory when this ends, or there, if they are not copied.
template <class tiles, int ROWS>
__device__ void start_rows(const typename tiles::Rows& to, const Rounded& from, int b, int h, int first) {
  const MmaAttention& c = from.c;
  if (from.is_copied)
    return for_runs<tiles, ROWS, 8>(c, [&](int row, int column) {
      const bool exists = first + row < from.tokens.count && column < c.K;
      cp_async16(to.at(row, column), from.heads.at(b, first + row, h).template as<bf16>() + column, exists);
    });
  const auto four = [&](const Elements<float>& row, int column, float (&x)[4]) {
    if (c.fours) return row.load(column, x);
    for (int i = 0; i < 4; i++) x[i] = column + i < c.K ? row[column + i] : 0;
  };
  for_runs<tiles, ROWS, 4>(c, [&](int row, int column) {
    float x[4] = {}, angle[4];
    const bool exists = first + row < from.tokens.count && column < c.K;
    const float* const angles = exists ? from.angles(b, first + row) : nullptr;
    if (exists) four(from.heads.at(b, first + row, h), column, x);
    if (angles) four({const_cast<float*>(angles), DType::f32}, column, angle);
    *reinterpret_cast<Pack<uint32_t, 2>*>(to.at(row, column)) = from.change(x, angle, angles);
  });
}
/// What has to be done to these rows when the thread's copies have arrived. A barrier is to follow.
template <class tiles, int ROWS>
__device__ void finish_rows(const typename tiles::Rows& rows, const Rounded& from, int b, int first) {
  const MmaAttention& c = from.c;
  if (!from.is_copied || (!from.angles(b, 0) && from.factor == 1)) return;
  for_runs<tiles, ROWS, 8>(c, [&](int row, int column) {
    if (first + row >= from.tokens.count || column >= c.K) return;
    const Elements<float> own(rows.at(row, column), DType::bf16);
    const float* const angles = from.angles(b, first + row);
    TITAN_NO_UNROLL
    for (int i = 0; i < 8; i += 4) {
      float x[4], angle[4];
      own.load(i, x);
      if (angles) Elements<float>(const_cast<float*>(angles), DType::f32).load(column + i, angle);
      *reinterpret_cast<Pack<uint32_t, 2>*>(own.as<bf16>() + i) = from.change(x, angle, angles);
    }
  });
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
/// Scores, rounded: what rows of a tile are multiplied with.
template <class tiles>
__device__ void round_scores(typename tiles::Weights& rounded, const typename tiles::Scores& weights) {
  TITAN_UNROLL
  for (int j = 0; j < tiles::OTHERS / 16; j++) {
    const Sums &low = weights[2 * j], &high = weights[2 * j + 1];
    rounded[j][0] = pack(low[0], low[1]), rounded[j][1] = pack(low[2], low[3]), rounded[j][2] = pack(high[0], high[1]), rounded[j][3] = pack(high[2], high[3]);
  }
}
/// sums += weights times rows of a tile.
template <class tiles>
__device__ void add_weighted(typename tiles::Outputs& sums, const typename tiles::Weights& weights, const typename tiles::Rows& rows, int width) {
  TITAN_UNROLL
  for (int p = 0; p < tiles::P; p += 16) {
    if (p >= width) continue;
    TITAN_UNROLL
    for (int j = 0; j < tiles::OTHERS / 16; j++) {
      Fragment y;
      rows.load_b(y, 16 * j, p);
      multiply_add(sums[p / 8], weights[j], y[0], y[1]);
      multiply_add(sums[p / 8 + 1], weights[j], y[2], y[3]);
    }
  }
}

template <class tiles>
__device__ void add_weighted(typename tiles::Outputs& sums, const typename tiles::Scores& weights, const typename tiles::Rows& rows, int width) {
  typename tiles::Weights rounded;
  round_scores<tiles>(rounded, weights);
  add_weighted<tiles>(sums, rounded, rows, width);
}

/// The tokens of a thread's two rows: queries among keys, or keys among queries.
template <class tiles, bool are_queries>
struct RowTokens {
  int b;
  int32_t position[2], document[2];
  bool exists[2];
  __device__ RowTokens(const MmaAttention& c, int b, int first) : b(b) {
    const Tokens<float>& tokens = are_queries ? c.queries : c.keys;
    for (int i = 0; i < 2; i++) {
      const int token = first + tiles::row(i);
      exists[i] = token < tokens.count;
      position[i] = exists[i] ? tokens.position(b, token) : 0, document[i] = exists[i] ? tokens.document(b, token) : 0;
    }
  }
  /// Of the thread's scores in the tile of others that begins there, those of queries that see the key: bit 4 n + i for scores[n][i].
  __device__ uint32_t seen(const MmaAttention& c, int begin) const {
    const Tokens<float>& others = are_queries ? c.keys : c.queries;
    uint32_t seen = 0;
    TITAN_UNROLL
    for (int n = 0; n < tiles::OTHERS / 8; n++)
      TITAN_UNROLL
      for (int i = 0; i < 2; i++) {
        const int other = begin + tiles::column(n, i);
        if (other >= others.count) continue;
        const int32_t at = others.position(b, other), of = others.document(b, other);
        TITAN_UNROLL
        for (int which = 0; which < 2; which++) seen |= uint32_t(exists[which] && of == document[which] && (are_queries ? at <= position[which] : position[which] <= at)) << (4 * n + 2 * which + i);
      }
    return seen;
  }
};

/// Tiles of others of one kind, as they are held in shared memory.
template <class tiles>
struct Held {
  typename tiles::Rows memory;
  Rounded from;
  __device__ typename tiles::Rows operator[](int turn) const { return memory + (tiles::DOUBLE ? turn * tiles::OTHERS : 0); }
  __device__ void start(int turn, int b, int h, int begin) const { start_rows<tiles, tiles::OTHERS>((*this)[turn], from, b, h, begin); }
  __device__ void finish(int turn, int b, int begin) const { finish_rows<tiles, tiles::OTHERS>((*this)[turn], from, b, begin); }
};

/// Where a tile of others begins, and in which head.
struct TilePlace {
  int h, begin;
};

/// Walks through `count` pairs of tiles of others of batch b. `place(i)` says where pair i is, `sees(begin)` which scores of the thread count; what no thread of the
/// block sees is left out. `beside(turn, place)` loads what else a pair needs. Of a warp that sees any, `use_first(seen, turn)` has first[turn], and then
/// `use_second(seen, turn)` second[turn], and first[turn] too where tiles are double; turns are 0 and 1 by turns.
/// Double tiles: while a pair is used, all of the next one comes, with one barrier for a pair. Else the second tile comes while the first is used, and
/// the next first one while the second is used, with two barriers.
/// What the caller has put into shared memory before is there when tiles are used; what it has used there before needs a barrier.
template <class tiles, class Place, class Sees, class Beside, class UseFirst, class UseSecond>
__device__ void walk(int b, int count, const Held<tiles>& first, const Held<tiles>& second, Place place, Sees sees, Beside beside, UseFirst use_first, UseSecond use_second) {
  int next = -1;
  uint32_t next_seen = 0;
  // A barrier at least.
  const auto advance = [&] {
    for (next++; next < count; next++) {
      next_seen = sees(place(next).begin);
      if (__syncthreads_or(next_seen != 0)) return;
    }
    __syncthreads();
  };
  const auto start_next = [&](int turn) {
    if (next < count) {
      const TilePlace at = place(next);
      first.start(turn, b, at.h, at.begin);
      if constexpr (tiles::DOUBLE) second.start(turn, b, at.h, at.begin);
      cp_async_commit();
      beside(turn, at);
    }
  };
  advance();
  start_next(0);
  for (int turn = 0; next < count; turn ^= 1) {
    const TilePlace at = place(next);
    const uint32_t seen = next_seen;
    cp_async_wait<0>();
    first.finish(turn, b, at.begin);
    if constexpr (tiles::DOUBLE) {
      second.finish(turn, b, at.begin);
      advance();
      start_next(turn ^ 1);
    } else {
      __syncthreads();
      second.start(turn, b, at.h, at.begin);
      cp_async_commit();
    }
    const bool any = __any_sync(~0u, seen != 0);
    if (any) use_first(seen, turn);
    if constexpr (!tiles::DOUBLE) {
      cp_async_wait<0>();
      second.finish(turn, b, at.begin);
      advance();
      start_next(turn ^ 1);
    }
    if (any) use_second(seen, turn);
  }
}

}  // namespace titan::cuda
