// What kernels share: elements however they are stored, several at once where they are aligned, sums over a block, and the index space of operands.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "launch.h"

namespace titan::cuda {

constexpr int WARP = 32, BLOCK_THREADS = 256;
/// Bytes that a thread loads or stores by one instruction, at most.
constexpr int WORD = 16;

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
  /// N at once: one; four; or eight, which are then bf16. Several are aligned as `Lanes` tells.
  template <int N>
  __device__ void load(int64_t i, real (&x)[N]) const {
    fetch(i, x);
    widen(x);
  }
  /// The first half of `load`: x has the bits as they are stored, until `widen`. What fetches several operands before it widens the first waits for
  /// memory once.
  template <int N>
  __device__ void fetch(int64_t i, real (&x)[N]) const {
    if constexpr (N == 1) x[0] = (*this)[i];
    else if (are_bf16<N>()) copy_words<bf16>(as<bf16>() + i, x);
    else copy_words<real>(as<real>() + i, x);
  }
  template <int N>
  __device__ void widen(real (&x)[N]) const {
    if constexpr (N > 1 && sizeof(real) == 4) {
      if (!are_bf16<N>()) return;
      bf16 bits[N];
      __builtin_memcpy(bits, x, sizeof bits);
      for (int k = 0; k < N; k++) x[k] = bits[k];
    }
  }
  template <int N>
  __device__ void store(int64_t i, const real (&x)[N]) const {
    if constexpr (N == 1) {
      put(i, x[0]);
    } else if (are_bf16<N>()) {
      Pack<bf16, N> pack;
      for (int k = 0; k < N; k++) pack.v[k] = bf16(x[k]);
      *reinterpret_cast<Pack<bf16, N>*>(as<bf16>() + i) = pack;
    } else {
      constexpr int M = WORD / int(sizeof(real));
      for (int k = 0; k < N; k += M) {
        Pack<real, M> pack;
        for (int j = 0; j < M; j++) pack.v[j] = x[k + j];
        *reinterpret_cast<Pack<real, M>*>(as<real>() + i + k) = pack;
      }
    }
  }

 private:
  template <int N>
  __device__ bool are_bf16() const {
    return sizeof(real) == 4 && (N == 8 || dtype == DType::bf16);
  }
  /// The bits of N elements from a place on.
  template <class T, int N>
  static __device__ void copy_words(const T* from, real (&x)[N]) {
    constexpr int M = N * int(sizeof(T)) < WORD ? N : WORD / int(sizeof(T));
    for (int k = 0; k < N; k += M) {
      const auto pack = *reinterpret_cast<const Pack<T, M>*>(from + k);
      __builtin_memcpy(reinterpret_cast<T*>(x) + k, &pack, sizeof pack);
    }
  }
};

/// x.load(i, a) for each pair of x and a, all of which are under way at once.
template <class real, int N, class... Rest>
__device__ void load(int64_t i, const Elements<real>& x, real (&a)[N], Rest&&... rest) {
  x.fetch(i, a);
  if constexpr (sizeof...(rest)) load(i, rest...);
  x.widen(a);
}

/// How many elements of a row a thread takes at once: where all are bf16 eight, else four. A word of 16 bytes has so many of the widest type; a narrower
/// one then moves by less, but by whole lines, as neighbouring threads take neighbouring elements.
struct Lanes {
  int n;
  bool aligned;  // else one after another

  /// Of rows of these operands. Absent ones do not matter.
  Lanes(std::initializer_list<const Tensor*> operands) : n(8), aligned(true) {
    for (const Tensor* t : operands)
      if (t->data && t->dtype != DType::bf16) n = 4;
    for (const Tensor* t : operands) {
      if (!t->data) continue;
      const uint64_t word = std::min<uint64_t>(WORD, n * size_of(t->dtype));
      aligned &= size_of(t->dtype) > 1 && reinterpret_cast<uintptr_t>(t->data) % word == 0;
      for (int d = 0; d + 1 < t->rank; d++) aligned &= t->dims[d] == 1 || uint64_t(t->strides[d]) * size_of(t->dtype) % word == 0;
    }
  }
  __device__ Lanes(int n, bool aligned) : n(n), aligned(aligned) {}
};

template <int N>
struct Width {
  static constexpr int value = N;
};
/// f(d, Width<8, 4 or 1>) for the elements d of a row that are this thread's, all of the row together from `threads` threads. A thread has the same
/// elements in the same order whether they are aligned or not: sums have the same bits wherever a row lies.
template <class F>
__device__ void for_row(int64_t row, Lanes lanes, int64_t thread, int64_t threads, F f) {
  const int64_t whole = row / lanes.n * lanes.n;
  for (int64_t d = lanes.n * thread; d < whole; d += lanes.n * threads) {
    if (!lanes.aligned)
      for (int k = 0; k < lanes.n; k++) f(d + k, Width<1>{});
    else if (lanes.n == 8) f(d, Width<8>{});
    else f(d, Width<4>{});
  }
  for (int64_t d = whole + thread; d < row; d += threads) f(d, Width<1>{});
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
      const int64_t next = d == 0 ? 0 : (i | dims[d]) >> 32 ? i / dims[d] : int64_t(uint32_t(i) / uint32_t(dims[d])), own = i - next * dims[d];
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
