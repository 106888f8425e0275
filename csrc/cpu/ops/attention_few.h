// Attention of few queries to many keys, as when a token is decoded: memory-bound. A query is one task. Keys and values are read where they lie,
// once for each query head, and only in blocks of which the query sees a key; here the head is in SIMD lanes, not the queries. The steps, the
// rounding and the accuracy are those of attention.cpp.
#pragma once
#include "../parallel.h"
#include "attention.h"

namespace titan::cpu::inline TITAN_LEVEL {

constexpr int64_t FEW_QUERIES = 4;  // of a sequence

/// Lane i is the sum over the lanes of r[i].
template <class real>
TITAN_INLINE vec<real> sum_each(vec<real> (&r)[LANES<real>]) {
#pragma GCC unroll 4
  for (int n = LANES<real> / 2; n >= 1; n /= 2)
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) r[i] = zip_low(r[i], r[i + n], lane_indices<real>()) + zip_high(r[i], r[i + n], lane_indices<real>());
  return r[0];
}

/// Keys and values are stored as Stored.
template <class F, class Stored>
struct FewQueries {
  using real = typename F::real;
  static constexpr int L = LANES<real>;
  static constexpr int64_t AHEAD = 16;  // rows of keys
  const Heads& heads;
  alignas(64) real query[MOST_HEAD_SIZE], output[MOST_HEAD_SIZE], powers[BLOCK_KEYS];

  explicit FewQueries(const Heads& h) : heads(h) {}

  template <class T>
  static TITAN_INLINE vec<real> load_rounded(const T* p, int64_t lanes) {
    const vec<real> x = lanes >= L ? load(p) : load(p, lanes);
    if constexpr (std::is_same_v<T, bf16>) return x;
    else return F::rounded(x);
  }
  static TITAN_INLINE void prefetch(const void* row, int64_t bytes) {
    for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(static_cast<const char*>(row) + byte);
  }

  /// Scores of `count` keys from `first` on go to `powers`, -inf behind them up to whole vectors; returns their maxima, lane by lane. The values
  /// that belong to them are asked for.
  TITAN_INLINE vec<real> scores(const Stored* first, int64_t step, const Stored* values, int64_t value_step, int64_t count) {
    const real infinity = std::numeric_limits<real>::infinity();
    vec<real> most = splat(-infinity);
    for (int64_t j = 0; j < count; j += L, first += L * step, values += L * value_step) {
      vec<real> sums[L] = {};
      const int64_t keys = std::min<int64_t>(L, count - j);
      for (int64_t i = 0; i < keys; i++) {
        prefetch(first + (i + AHEAD) * step, heads.K * int64_t(sizeof(Stored)));
        prefetch(values + i * value_step, heads.K * int64_t(sizeof(Stored)));
      }
      const auto add = [&](int64_t k, int64_t lanes) {
        const vec<real> x = load(query + k);
        if (keys == L) {
#pragma GCC unroll 16
          for (int i = 0; i < L; i++) sums[i] += load_rounded(first + i * step + k, lanes) * x;
        } else {
#pragma GCC unroll 16
          for (int i = 0; i < L; i++)
            if (i < keys) sums[i] += load_rounded(first + i * step + k, lanes) * x;
        }
      };
      for_lanes<real>(heads.K, add);
      vec<real> score = sum_each<real>(sums);
      for (int64_t i = keys; i < L; i++) score[i] = -infinity;
      store(powers + j, score);
      most = larger(score, most);
    }
    return most;
  }

  /// output = output * rescale + powers values, over `count` keys, for V vectors of the head from k on, of which `width` elements exist.
  template <int V, bool whole>
  TITAN_INLINE void add_values(const Stored* first, int64_t step, int64_t count, real rescale, int64_t k, int64_t width) {
    constexpr int SIDE = 2;
    vec<real> sums[SIDE][V] = {};
    const auto add = [&](int64_t j, vec<real> (&to)[V]) {
      const vec<real> power = splat(powers[j]);
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) to[v] += power * load_rounded(first + j * step + k + v * L, whole ? L : width - v * L);
    };
    int64_t j = 0;
    for (; j + SIDE <= count; j += SIDE)
#pragma GCC unroll 2
      for (int s = 0; s < SIDE; s++) add(j + s, sums[s]);
    for (; j < count; j++) add(j, sums[0]);
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) store(output + k + v * L, load(output + k + v * L) * rescale + (sums[0][v] + sums[1][v]));
  }
  TITAN_INLINE void add_values(const Stored* first, int64_t step, int64_t count, real rescale) {
    int64_t k = 0;
    for (; k + 4 * L <= heads.K; k += 4 * L) add_values<4, true>(first, step, count, rescale, k, 4 * L);
    for (; k + L <= heads.K; k += L) add_values<1, true>(first, step, count, rescale, k, L);
    if (k < heads.K) add_values<1, false>(first, step, count, rescale, k, heads.K - k);
  }

  /// Which of a block's keys a query sees.
  static Visible seen(const Tokens& keys, int64_t begin, int64_t count, int32_t position) {
    int32_t least = INT32_MAX, most = INT32_MIN;
    if (keys.step == 1) {
      const int32_t* const at = keys.positions + begin;
      for (int64_t i = 0; i < count; i++) least = std::min(least, at[i]), most = std::max(most, at[i]);
    } else {
      for (int64_t i = 0; i < count; i++) least = std::min(least, keys.position(begin + i)), most = std::max(most, keys.position(begin + i));
    }
    return least > position ? Visible::NONE : most <= position && !keys.documents ? Visible::ALL : Visible::SOME;
  }

  void attend(int64_t b, int64_t t, int64_t h, real scale, const Tensor& o, const Tensor& lse) {
    const int64_t K = heads.K, g = h / (heads.H / heads.G);
    const Tensor &k = heads.k, &v = heads.v;
    const Stored* const keys = k.as<Stored>() + b * k.strides[0] + g * k.strides[2];
    const Stored* const values = v.as<Stored>() + b * v.strides[0] + g * v.strides[2];
    const Tokens queries = heads.queries(b), key_tokens = heads.keys(b);
    const int32_t position = queries.position(t), document = queries.document(t);
    load_head<F>(query, Head<typename F::storage>(heads.q, b, h)[t], Angles<real>(heads.q_table, b)[t], K, heads.P, scale);
    for (int64_t p = 0; p < heads.P; p += L) store(query + p, F::rounded(load(query + p))), store(output + p, vec<real>{});
    real most = -1e30, sum = 0;  // finite, so that -inf - most is no NaN
    for (int64_t begin = 0; begin < heads.S; begin += BLOCK_KEYS) {
      const int64_t count = std::min(BLOCK_KEYS, heads.S - begin);
      const Visible visible = seen(key_tokens, begin, count, position);
      if (visible == Visible::NONE) continue;
      vec<real> maxima = scores(keys + begin * k.strides[1], k.strides[1], values + begin * v.strides[1], v.strides[1], count);
      if (visible == Visible::SOME) {
        for (int64_t j = 0; j < count; j++)
          if (key_tokens.position(begin + j) > position || key_tokens.document(begin + j) != document) powers[j] = -std::numeric_limits<real>::infinity();
        maxima = load(powers);
        for (int64_t j = L; j < count; j += L) maxima = larger(load(powers + j), maxima);
      }
      const real before = most;
      vec<real> sums = {};
      most = larger(splat(before), splat(max_lanes<real>(maxima)))[0];
      for (int64_t j = 0; j < count; j += L) {
        const vec<real> power = exp2_quick<real>(load(powers + j) - most);
        sums += power;
        store(powers + j, F::rounded(power));
      }
      const real rescale = exp2_quick<real>(splat(before - most))[0];
      sum = sum * rescale + sum_lanes<real>(sums);
      add_values(values + begin * v.strides[1], v.strides[1], count, rescale);
    }
    store_head(Head<typename F::storage>(o, b, h)[t], output, nullptr, K, sum == 0 ? real(0) : 1 / sum);
    lse.as<real>()[b * lse.strides[0] + h * lse.strides[1] + t * lse.strides[2]] = most * real(LN2) + log_lanes<real>(splat(sum))[0];
  }
};

template <class F, class Stored>
void attend_few(const Call& call) {
  const Heads heads(call, 3);
  const auto scale = typename F::real(call.attributes[0].f * LOG2E);
  const int64_t queries = heads.T * heads.H;
  for_each(heads.B * queries, call.threads, [&](int64_t task) {
    FewQueries<F, Stored> few(heads);
    few.attend(task / queries, task % heads.T, task % queries / heads.T, scale, call[11], call[12]);
  });
}

/// Is this a call of few queries, whose keys are turned already and who see no other keys?
inline bool is_of_few_queries(const Call& call) { return call[0].dims[1] <= FEW_QUERIES && call[1].dtype == call[2].dtype && !present(call[4]) && !present(call[9]); }

inline void attend_few(const Call& call) {
  if (!call.attributes[1].i) return with_real(call[0].dtype, [&](auto zero) { attend_few<Exact<decltype(zero)>, decltype(zero)>(call); });
  if (call[1].dtype == DType::bf16) attend_few<Rounded, bf16>(call);
  else attend_few<Rounded, float>(call);
}

}  // namespace titan::cpu::inline TITAN_LEVEL
