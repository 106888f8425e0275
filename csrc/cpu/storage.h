// Operands that may be stored as bf16 while their kernel computes in f32 (`~` in kernels.def). A kernel is written once over the storage S of
// a call: float or double where all reals are stored as that, else `mixed`, where each operand says how it is stored.
#pragma once
#include "check.h"
#include "simd.h"

namespace titan::cpu::inline TITAN_LEVEL {

struct mixed {};

/// What a kernel computes in, by the storage of its call or of one operand.
template <class S>
using computed = std::conditional_t<std::is_same_v<S, double>, double, float>;

/// Elements of stride 1 from some place of an operand on. In a mixed call each access branches, always the same way: compilers move that out of
/// loops over few operands, and elsewhere it costs less than the memory saved.
template <class S>
struct Row {
  S* data;

  Row(const Tensor& t, int64_t offset) : data(t.as<S>() + offset) {}
  TITAN_INLINE vec<S> load(int64_t i, int64_t lanes) const { return cpu::load(data + i, lanes); }
  TITAN_INLINE void store(int64_t i, vec<S> x, int64_t lanes) const { cpu::store(data + i, x, lanes); }
};
template <>
struct Row<mixed> {
  void* data;
  bool is_bf16;

  Row(const Tensor& t, int64_t offset) : data(t.as<char>() + offset * int64_t(size_of(t.dtype))), is_bf16(t.dtype == DType::bf16) {}
  TITAN_INLINE vec<float> load(int64_t i, int64_t lanes) const {
    return is_bf16 ? cpu::load(static_cast<const bf16*>(data) + i, lanes) : cpu::load(static_cast<const float*>(data) + i, lanes);
  }
  TITAN_INLINE void store(int64_t i, vec<float> x, int64_t lanes) const {
    if (is_bf16) cpu::store(static_cast<bf16*>(data) + i, x, lanes);
    else cpu::store(static_cast<float*>(data) + i, x, lanes);
  }
};

/// Row n of a matrix, or a vector from element n on.
template <class S>
Row<S> row(const Tensor& t, int64_t n) {
  return Row<S>(t, n * t.strides[0]);
}

/// Calls f(float{}), f(double{}) or f(mixed{}), by the storage of a call.
template <class F>
inline void with_storage(const Call& call, F f) {
  bool is_f64 = false, is_mixed = false;
  for (int i = 0; i < call.num_operands; i++) is_f64 |= call[i].dtype == DType::f64, is_mixed |= call[i].dtype == DType::bf16;
  if (is_f64) f(double{});
  else if (is_mixed) f(mixed{});
  else f(float{});
}

/// Calls f(float{}), f(double{}) or f(bf16{}), by how one operand is stored.
template <class F>
inline void with_stored(const Tensor& t, F f) {
  if (t.dtype == DType::f64) f(double{});
  else if (t.dtype == DType::bf16) f(bf16{});
  else f(float{});
}
/// The same for an operand and one that is made from it.
template <class F>
inline void with_stored(const Tensor& x, const Tensor& y, F f) {
  if (x.dtype == DType::f64) return f(double{}, double{});
  if (x.dtype == DType::bf16) return y.dtype == DType::bf16 ? f(bf16{}, bf16{}) : f(bf16{}, float{});
  y.dtype == DType::bf16 ? f(float{}, bf16{}) : f(float{}, float{});
}

}  // namespace titan::cpu::inline TITAN_LEVEL
