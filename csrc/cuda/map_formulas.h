// What the source of a map has in common with all others: the formula of each operation under its name in kernels.def, and how elements lie in memory.
// NVRTC gets this text from inside of libtitan_cuda, behind backend.h, and no header of a compiler: so it includes nothing, and calls the functions of
// mathematics by their names in C.
#pragma once

namespace titan::cuda::map {

/// What a launch is given: where the operands lie, and whether they are aligned for loads and stores of several elements.
struct Operands {
  void* data[64];
  bool aligned;
};

#define FORMULA(name, value) \
  template <class real>      \
  __device__ inline real name(real a, real b = 0, real c = 0) { return value; }

__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return ::exp(x); }
__device__ inline float logarithm(float x) { return logf(x); }
__device__ inline double logarithm(double x) { return ::log(x); }
__device__ inline float root(float x) { return sqrtf(x); }
__device__ inline double root(double x) { return ::sqrt(x); }
__device__ inline float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ inline double hyperbolic_tangent(double x) { return ::tanh(x); }
__device__ inline float size(float x) { return fabsf(x); }
__device__ inline double size(double x) { return ::fabs(x); }
__device__ inline float exponent_bits(float x) { return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, x) & 0xff800000u); }
__device__ inline double exponent_bits(double x) { return __builtin_bit_cast(double, __builtin_bit_cast(uint64_t, x) & uint64_t(0xfff0000000000000u)); }

FORMULA(add, a + b)
FORMULA(sub, a - b)
FORMULA(mul, a* b)
FORMULA(div, a / b)
FORMULA(maximum, a > b || a != a ? a : b)
FORMULA(minimum, a < b || a != a ? a : b)
FORMULA(neg, -a)
FORMULA(abs, size(a))
FORMULA(exp, exponential(a))
FORMULA(log, logarithm(a))
FORMULA(sqrt, root(a))
FORMULA(rsqrt, 1 / root(a))
FORMULA(tanh, hyperbolic_tangent(a))
FORMULA(sigmoid, 1 / (1 + exponential(-a)))
FORMULA(silu, a / (1 + exponential(-a)))
FORMULA(relu, a > 0 || a != a ? a : 0)
FORMULA(square, a* a)
FORMULA(reciprocal, 1 / a)
FORMULA(less, a < b)
FORMULA(less_equal, a <= b)
FORMULA(equal, a == b)
FORMULA(select, a != 0 ? b : c)
FORMULA(floor_power_of_two, a != a ? a : exponent_bits(a))
FORMULA(round_bf16, real(bf16(float(a))))
FORMULA(round_f8e4m3, real(f8e4m3(float(a))))
FORMULA(round_f8e5m2, real(f8e5m2(float(a))))
#undef FORMULA

/// Up to 16 bytes, which go in one access.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};
template <class T, int N>
constexpr int PACKED = N * sizeof(T) > 16 ? 16 / sizeof(T) : N;

/// N neighbours of the innermost dim, where the operand has this stride. One by one, unless they lie side by side.
template <class T, int stride, int N, class real, class Index>
__device__ inline void load(const void* data, Index place, real (&x)[N]) {
  const T* const from = static_cast<const T*>(data) + place;
  if constexpr (stride == 1 && N > 1) {
    constexpr int P = PACKED<T, N>;
#pragma unroll
    for (int k = 0; k < N; k += P) {
      const Pack<T, P> pack = *reinterpret_cast<const Pack<T, P>*>(from + k);
#pragma unroll
      for (int j = 0; j < P; j++) x[k + j] = real(pack.v[j]);
    }
  } else if constexpr (stride == 0) {
    const real value = real(*from);
#pragma unroll
    for (int k = 0; k < N; k++) x[k] = value;
  } else {
#pragma unroll
    for (int k = 0; k < N; k++) x[k] = real(from[Index(k) * Index(stride)]);
  }
}
template <class T, int stride, int N, class real, class Index>
__device__ inline void store(void* data, Index place, const real (&y)[N]) {
  T* const to = static_cast<T*>(data) + place;
  if constexpr (stride == 1 && N > 1) {
    constexpr int P = PACKED<T, N>;
#pragma unroll
    for (int k = 0; k < N; k += P) {
      Pack<T, P> pack;
#pragma unroll
      for (int j = 0; j < P; j++) pack.v[j] = T(y[k + j]);
      *reinterpret_cast<Pack<T, P>*>(to + k) = pack;
    }
  } else {
#pragma unroll
    for (int k = 0; k < N; k++) to[Index(k) * Index(stride)] = T(y[k]);
  }
}

}  // namespace titan::cuda::map
