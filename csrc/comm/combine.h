// Sums and maxima of what several ranks have, in the order of the ranks: the same bits in every run, on every rank, by shared memory or messages.
#pragma once
#include <algorithm>
#include <cstring>

#include "../backend.h"

namespace titan::comm {

constexpr int64_t BLOCK = 1024;  // elements that are summed at a time: they stay in the nearest cache

template <class T> struct Wide { using type = T; };
template <> struct Wide<bf16> { using type = float; };         // rounded once, when all are added
template <> struct Wide<int32_t> { using type = uint32_t; };  // which may wrap

/// out[i] = parts[0][i] + parts[1][i] + ..., or their maximum (NaN where one is). `out` may be one of the parts, if all are of one type.
template <class T, class Out = T> void combine_as(bool maximum, const char* const* parts, int num_parts, char* out, int64_t n) {
  using W = typename Wide<T>::type;
  W sum[BLOCK];
  for (int64_t start = 0; start < n; start += BLOCK) {
    const int64_t count = std::min(BLOCK, n - start);
    const auto part = [&](int p) { return reinterpret_cast<const T*>(parts[p]) + start; };
    const T* first = part(0);
    for (int64_t i = 0; i < count; i++) sum[i] = static_cast<W>(first[i]);
    for (int p = 1; p < num_parts; p++) {
      const T* x = part(p);
      if (maximum) {
        // Compared as T: integers are summed without a sign.
        for (int64_t i = 0; i < count; i++) sum[i] = static_cast<T>(sum[i]) != static_cast<T>(sum[i]) || static_cast<T>(sum[i]) > x[i] ? sum[i] : static_cast<W>(x[i]);
      } else {
        for (int64_t i = 0; i < count; i++) sum[i] += static_cast<W>(x[i]);
      }
    }
    Out* to = reinterpret_cast<Out*>(out) + start;
    for (int64_t i = 0; i < count; i++) to[i] = static_cast<Out>(sum[i]);
  }
}

inline void combine(DType dtype, bool maximum, const char* const* parts, int num_parts, char* out, int64_t n) {
  if (dtype == DType::f64) combine_as<double>(maximum, parts, num_parts, out, n);
  else if (dtype == DType::bf16) combine_as<bf16>(maximum, parts, num_parts, out, n);
  else if (dtype == DType::i32) combine_as<int32_t>(maximum, parts, num_parts, out, n);
  else combine_as<float>(maximum, parts, num_parts, out, n);
}

/// A sum that is to be added to others first, and not rounded before: what its elements are.
inline DType partial_of(DType dtype) { return dtype == DType::bf16 ? DType::f32 : dtype; }

/// Parts of `dtype` to a partial sum.
inline void combine_to_partial(DType dtype, bool maximum, const char* const* parts, int num_parts, char* out, int64_t n) {
  if (dtype == DType::bf16) combine_as<bf16, float>(maximum, parts, num_parts, out, n);
  else combine(dtype, maximum, parts, num_parts, out, n);
}

/// Partial sums to one of `dtype`.
inline void combine_partials(DType dtype, bool maximum, const char* const* parts, int num_parts, char* out, int64_t n) {
  if (dtype == DType::bf16) combine_as<float, bf16>(maximum, parts, num_parts, out, n);
  else combine(dtype, maximum, parts, num_parts, out, n);
}

}  // namespace titan::comm
