// What kernels share: elements however they are stored, several at once where they are aligned, sums over a block, and the index space of operands.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "launch.h"

namespace titan::cuda {

constexpr int WARP = 32, BLOCK_THREADS = 256;

/// As many blocks as it takes, at most `most`: kernels go on by strides of the grid.
inline unsigned blocks_for(int64_t n, int64_t each, int64_t most = 1 << 20) { return unsigned(std::min((n + each - 1) / each, most)); }
/// Threads for a row that is read in fours.
inline unsigned threads_for(int64_t row) {
  unsigned threads = WARP;
  while (threads < 512 && threads * 8 < row) threads *= 2;
  return threads;
}

inline int64_t count(const Tensor& t) {
  int64_t n = 1;
  for (int d = 0; d < t.rank; d++) n *= t.dims[d];
  return n;
}

/// Calls f(float{}) or f(double{}), by the operand that says what a call computes in.
template <class F>
void with_real(const Tensor& t, F f) {
  if (t.dtype == DType::f64) f(double{});
  else f(float{});
}

template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};

/// Elements of an operand from some place on, computed in `real`: where that is f32, they may be stored as bf16 or float8, or be integers.
/// All threads of a launch take the same branch.
template <class real>
struct Elements {
  void* data;
  DType dtype;

  Elements(const Tensor& t) : data(t.data), dtype(t.dtype) {}
  __device__ Elements(void* data, DType dtype) : data(data), dtype(dtype) {}
  template <class T>
  __device__ T* as() const { return static_cast<T*>(data); }
  __device__ Elements operator+(int64_t n) const { return {as<char>() + n * int64_t(size_of(dtype)), dtype}; }

  __device__ real operator[](int64_t i) const {
    if (dtype == DType::i32) return real(as<int32_t>()[i]);
    if constexpr (sizeof(real) == 4) {
      if (dtype == DType::bf16) return as<bf16>()[i];
      if (dtype == DType::f8e4m3) return as<f8e4m3>()[i];
      if (dtype == DType::f8e5m2) return as<f8e5m2>()[i];
    }
    return as<real>()[i];
  }
  __device__ void put(int64_t i, real x) const {
    if constexpr (sizeof(real) == 4) {
      if (dtype == DType::bf16) return void(as<bf16>()[i] = bf16(x));
      if (dtype == DType::f8e4m3) return void(as<f8e4m3>()[i] = f8e4m3(x));
      if (dtype == DType::f8e5m2) return void(as<f8e5m2>()[i] = f8e5m2(x));
    }
    as<real>()[i] = x;
  }
  /// N at once: one, or four reals or bf16 at a multiple of four.
  template <int N>
  __device__ void load(int64_t i, real (&x)[N]) const {
    if constexpr (N == 1) {
      x[0] = (*this)[i];
    } else if constexpr (sizeof(real) == 8) {
      for (int k = 0; k < N; k += 2) {
        const auto pack = *reinterpret_cast<const Pack<real, 2>*>(as<real>() + i + k);
        x[k] = pack.v[0], x[k + 1] = pack.v[1];
      }
    } else if (dtype == DType::bf16) {
      const auto pack = *reinterpret_cast<const Pack<bf16, N>*>(as<bf16>() + i);
      for (int k = 0; k < N; k++) x[k] = pack.v[k];
    } else {
      const auto pack = *reinterpret_cast<const Pack<real, N>*>(as<real>() + i);
      for (int k = 0; k < N; k++) x[k] = pack.v[k];
    }
  }
  template <int N>
  __device__ void store(int64_t i, const real (&x)[N]) const {
    if constexpr (N == 1) {
      put(i, x[0]);
    } else if constexpr (sizeof(real) == 8) {
      for (int k = 0; k < N; k += 2) *reinterpret_cast<Pack<real, 2>*>(as<real>() + i + k) = Pack<real, 2>{{x[k], x[k + 1]}};
    } else if (dtype == DType::bf16) {
      Pack<bf16, N> pack;
      for (int k = 0; k < N; k++) pack.v[k] = bf16(x[k]);
      *reinterpret_cast<Pack<bf16, N>*>(as<bf16>() + i) = pack;
    } else {
      Pack<real, N> pack;
      for (int k = 0; k < N; k++) pack.v[k] = x[k];
      *reinterpret_cast<Pack<real, N>*>(as<real>() + i) = pack;
    }
  }
};

/// May the rows of all these be loaded in fours? Absent ones may.
inline bool in_fours(std::initializer_list<const Tensor*> operands) {
  for (const Tensor* t : operands) {
    if (!t->data) continue;
    if (size_of(t->dtype) == 1 || reinterpret_cast<uintptr_t>(t->data) % std::min<size_t>(16, 4 * size_of(t->dtype))) return false;
    for (int d = 0; d + 1 < t->rank; d++)
      if (t->dims[d] > 1 && t->strides[d] % 4) return false;
  }
  return true;
}

template <int N>
struct Width {
  static constexpr int value = N;
};
/// f(d, Width<4 or 1>) for the elements d of a row that are this thread's, all of the row together from `threads` threads. A thread has the same
/// elements in the same order whether they come in fours or not: sums have the same bits wherever a row lies.
template <class F>
__device__ void for_row(int64_t row, bool fours, int64_t thread, int64_t threads, F f) {
  const int64_t in_fours = row / 4 * 4;
  for (int64_t d = 4 * thread; d < in_fours; d += 4 * threads) {
    if (fours) f(d, Width<4>{});
    else
      for (int k = 0; k < 4; k++) f(d + k, Width<1>{});
  }
  for (int64_t d = in_fours + thread; d < row; d += threads) f(d, Width<1>{});
}

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const { return a + b; }
};
/// The larger; NaN if one is NaN.
struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};

template <class T, class Join>
__device__ T join_warp(T x, Join join) {
  for (int with = WARP / 2; with; with /= 2) x = join(x, __shfl_xor_sync(~0u, x, with));
  return x;
}
/// In all threads, joined in an order that depends on the block's size alone. All threads of a one-dimensional block take part.
template <class T, class Join>
__device__ T join_block(T x, Join join) {
  __shared__ T parts[WARP];
  x = join_warp(x, join);
  __syncthreads();  // what another call left here has been read
  if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = x;
  __syncthreads();
  x = parts[0];
  for (unsigned warp = 1; warp < blockDim.x / WARP; warp++) x = join(x, parts[warp]);
  return x;
}

/// The dims that up to N operands have in common, those of size 1 left out, ordered by the strides of the leading one and merged where all allow.
template <int N>
struct Space {
  int rank = 0;
  int64_t total = 1, dims[MAX_RANK], strides[N][MAX_RANK];

  Space() = default;
  Space(const Tensor* operands, int n, int leading) {
    int order[MAX_RANK];
    const Tensor& by = operands[leading];
    for (int d = 0; d < by.rank; d++) {
      total *= by.dims[d];
      if (by.dims[d] == 1) continue;
      int at = rank++;
      for (; at > 0 && by.strides[order[at - 1]] < by.strides[d]; at--) order[at] = order[at - 1];
      order[at] = d;
    }
    int merged = 0;
    for (int k = 0; k < rank; k++) {
      const int64_t size = by.dims[order[k]];
      bool joins = merged > 0;
      for (int i = 0; joins && i < n; i++) joins = strides[i][merged - 1] == operands[i].strides[order[k]] * size;
      if (joins) dims[merged - 1] *= size;
      else dims[merged++] = size;
      for (int i = 0; i < n; i++) strides[i][merged - 1] = operands[i].strides[order[k]];
    }
    rank = merged;
  }
  /// Places of element i in operand after operand.
  __device__ void at(int64_t i, int n, int64_t* places) const {
    for (int k = 0; k < n; k++) places[k] = 0;
    for (int d = rank - 1; d >= 0; d--) {
      const int64_t next = d == 0 ? 0 : i >> 32 ? i / dims[d] : int64_t(uint32_t(i) / uint32_t(dims[d])), own = i - next * dims[d];
      for (int k = 0; k < n; k++) places[k] += (d == 0 ? i : own) * strides[k][d];
      i = next;
    }
  }
};

/// f(i) for the elements that are this thread's of the grid.
template <class F>
__device__ void for_each(int64_t total, F f) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < total; i += int64_t{gridDim.x} * blockDim.x) f(i);
}

}  // namespace titan::cuda
