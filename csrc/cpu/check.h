// What a kernel asks of a call before it may ever run: the number of operands, dtypes, dims, strides, scratch.
// The first thing that is wrong becomes one sentence: which operand, what it is, what was expected.
#pragma once
#include <cinttypes>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <vector>

#include "../backend.h"

namespace titan::cpu::inline TITAN_LEVEL {

inline std::string to_text(const int64_t* values, int n) {
  std::string text = "[";
  for (int i = 0; i < n; i++) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}
inline bool is_real(DType dtype) { return kind_of(dtype) == ElementKind::real; }
/// What an operand that is stored as `dtype` is computed in.
inline DType widened(DType dtype) { return kind_of(dtype) == ElementKind::stored_real ? DType::f32 : dtype; }
inline bool present(const Tensor& tensor) { return tensor.data != nullptr; }
inline int64_t elements(const Tensor& tensor) {
  int64_t n = 1;
  for (int d = 0; d < tensor.rank; d++) n *= tensor.dims[d];
  return n;
}
/// Is this tensor one unbroken row-major run of elements?
inline bool is_dense(const Tensor& tensor) {
  int64_t stride = 1;
  for (int d = tensor.rank - 1; d >= 0; d--) {
    if (tensor.dims[d] != 1 && tensor.strides[d] != stride) return false;
    stride *= tensor.dims[d];
  }
  return true;
}

/// Collects the first complaint. A dim of -1 in `shape` allows any size.
class Check {
 public:
  /// `names` are the operands' names in order; `attributes` the least number of attribute words.
  Check(const Call& call, std::vector<std::string> names, int attributes) : call_(call), names_(std::move(names)) {
    require(call.num_operands == int(names_.size()), "there are " + std::to_string(call.num_operands) + " operands; expected: " + std::to_string(names_.size()));
    require(call.num_attributes >= attributes, "there are " + std::to_string(call.num_attributes) + " attribute words; expected: " + std::to_string(attributes));
    require(call.threads >= 1, "the call asks for " + std::to_string(call.threads) + " threads; expected: at least 1");
  }

  bool ok() const { return error_.empty(); }
  std::string error() const { return error_; }
  Check& require(bool condition, const std::string& complaint) {
    if (ok() && !condition) error_ = complaint;
    return *this;
  }
  /// Present, of this dtype, with these dims.
  Check& operand(int i, DType dtype, std::initializer_list<int64_t> dims) {
    if (!ok()) return *this;
    const Tensor& t = call_[i];
    if (!present(t)) return complain(i, "is absent; expected: a tensor");
    if (t.dtype != dtype) return complain(i, std::string("is ") + name_of(t.dtype) + "; expected: " + name_of(dtype));
    bool same = t.rank == int(dims.size());
    for (int d = 0; same && d < t.rank; d++) same = t.dims[d] == dims.begin()[d] || dims.begin()[d] == -1;
    return same ? *this : complain(i, "has dims " + to_text(t.dims, t.rank) + "; expected: " + to_text(dims.begin(), int(dims.size())) + (any(dims) ? " (-1: any size)" : ""));
  }
  /// The same, but for f32 it may be stored as bf16.
  Check& real_or_bf16(int i, DType real, std::initializer_list<int64_t> dims) { return operand(i, ok() && real == DType::f32 && call_[i].dtype == DType::bf16 ? DType::bf16 : real, dims); }
  /// The same, but it may also be stored as float8.
  Check& real_or_stored(int i, DType real, std::initializer_list<int64_t> dims) {
    return ok() && size_of(call_[i].dtype) == 1 && widened(call_[i].dtype) == real ? operand(i, call_[i].dtype, dims) : real_or_bf16(i, real, dims);
  }
  /// The last dim has stride 1.
  Check& rows(int i) {
    if (!ok()) return *this;
    const Tensor& t = call_[i];
    return t.rank == 0 || t.dims[t.rank - 1] == 1 || t.strides[t.rank - 1] == 1 ? *this : complain(i, "has strides " + to_text(t.strides, t.rank) + "; expected: the last one to be 1");
  }
  Check& dense(int i) {
    if (!ok()) return *this;
    const Tensor& t = call_[i];
    return is_dense(t) ? *this : complain(i, "has dims " + to_text(t.dims, t.rank) + " with strides " + to_text(t.strides, t.rank) + "; expected: one unbroken row-major run");
  }
  /// No two of its elements share memory by a stride of 0 (they would be written twice, by any thread).
  Check& writable(int i) {
    if (!ok()) return *this;
    const Tensor& t = call_[i];
    for (int d = 0; d < t.rank; d++)
      if (t.dims[d] > 1 && t.strides[d] == 0) return complain(i, "is written but dim " + std::to_string(d) + " has stride 0; expected: distinct elements");
    return *this;
  }
  /// An output may lie where an input does, if its elements then do as well.
  Check& in_place(int input, int output) {
    if (!ok()) return *this;
    const Tensor &from = call_[input], &to = call_[output];
    if (from.data != to.data || size_of(from.dtype) == size_of(to.dtype)) return *this;
    return complain(output, std::string("is ") + name_of(to.dtype) + " in the place of " + names_[size_t(input)] + ", which is " + name_of(from.dtype) + "; expected: the same dtype, or a place of its own");
  }
  Check& scratch(int i, int64_t bytes) {
    if (!ok()) return *this;
    const Tensor& t = call_[i];
    const int64_t given = present(t) ? elements(t) * int64_t(size_of(t.dtype)) : 0;
    return given >= bytes ? *this : complain(i, "holds " + std::to_string(given) + " bytes; expected: at least " + std::to_string(bytes));
  }
  /// The dtype of a real operand, for use as that of the others.
  DType real(int i) {
    if (ok() && i < call_.num_operands && !is_real(call_[i].dtype)) complain(i, std::string("is ") + name_of(call_[i].dtype) + "; expected: f32 or f64");
    return i < call_.num_operands ? call_[i].dtype : DType::f32;
  }
  /// The same where the operand may be stored as bf16, which is computed in f32.
  DType real_or_bf16(int i) {
    if (ok() && i < call_.num_operands && !is_real(call_[i].dtype) && call_[i].dtype != DType::bf16) complain(i, std::string("is ") + name_of(call_[i].dtype) + "; expected: f32, f64 or bf16");
    return i < call_.num_operands ? widened(call_[i].dtype) : DType::f32;
  }
  /// The same where it may be stored as float8, too.
  DType real_or_stored(int i) {
    if (ok() && i < call_.num_operands && !is_real(widened(call_[i].dtype))) complain(i, std::string("is ") + name_of(call_[i].dtype) + "; expected: f32, f64, bf16 or float8");
    return i < call_.num_operands ? widened(call_[i].dtype) : DType::f32;
  }
  /// Size of dim d of operand i (0 when it has no such dim: `operand` then says what is wrong).
  int64_t dim(int i, int d) const { return i < call_.num_operands && d < call_[i].rank ? call_[i].dims[d] : 0; }

 private:
  Check& complain(int i, const std::string& what) { return require(false, "operand " + std::to_string(i) + " (" + names_[size_t(i)] + ") " + what); }
  static bool any(std::initializer_list<int64_t> dims) {
    for (int64_t d : dims)
      if (d < 0) return true;
    return false;
  }
  const Call& call_;
  std::vector<std::string> names_;
  std::string error_;
};

/// Calls f(float{}) or f(double{}), by the dtype of a kernel's real operands.
template <class F>
inline void with_real(DType dtype, F f) {
  if (dtype == DType::f64) f(double{});
  else f(float{});
}

}  // namespace titan::cpu
