// What a kernel sees: strided tensors, attributes, run flags. A backend is a table of kernels, one per line of kernels.def.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "element_types.h"

namespace titan {

/// A real stored in 16 bits: the upper half of an f32. Kernels compute in f32; this is only how an operand lies in memory.
struct bf16 {
  uint16_t bits;
  bf16() = default;
  /// Rounds to nearest even; what is too large becomes an infinity, NaN stays NaN. Inline, as code of every processor level uses it.
  __attribute__((always_inline)) constexpr explicit bf16(float x) {
    const uint32_t u = __builtin_bit_cast(uint32_t, x);
    bits = uint16_t(x != x ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
  __attribute__((always_inline)) constexpr operator float() const { return __builtin_bit_cast(float, uint32_t{bits} << 16); }
};

/// A real stored in 8 bits, by the OCP's format of 8-bit floating point: EXPONENT bits of exponent, the rest mantissa. What is too large becomes the
/// largest number where there are no infinities (SATURATES), else an infinity. Like bf16, it is only a way to store.
template <int EXPONENT, bool SATURATES>
struct Float8 {
  static constexpr int BIAS = (1 << (EXPONENT - 1)) - 1, MANTISSA = 7 - EXPONENT, SHIFT = 23 - MANTISSA;
  /// Bits of f32: the least number that is too large after rounding, the least normal number, and a power of two whose last place is the
  /// distance of the subnormal numbers.
  static constexpr uint32_t TOO_LARGE = SATURATES ? 0x43e80000 : 0x47700000, NORMAL = (128 - BIAS) << 23, SUBNORMAL = (151 - BIAS - MANTISSA) << 23;
  static constexpr uint32_t LARGEST = SATURATES ? 0x7e : 0x7c, NOT_A_NUMBER = 0x7f;

  uint8_t bits;
  Float8() = default;
  /// Rounds to nearest even; NaN keeps its sign alone.
  __attribute__((always_inline)) constexpr explicit Float8(float x) {
    const uint32_t u = __builtin_bit_cast(uint32_t, x), size = u & 0x7fffffff;
    uint32_t rounded = (size - ((127 - BIAS) << 23) + (1 << (SHIFT - 1)) - 1 + (size >> SHIFT & 1)) >> SHIFT;
    if (size < NORMAL) rounded = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, size) + __builtin_bit_cast(float, SUBNORMAL)) - SUBNORMAL;
    if (size >= TOO_LARGE) rounded = x != x ? NOT_A_NUMBER : LARGEST;
    bits = uint8_t((u >> 24 & 0x80) | rounded);
  }
  __attribute__((always_inline)) constexpr operator float() const {
    const uint32_t size = bits & 0x7f, sign = uint32_t{bits} >> 7 << 31;
    uint32_t wide = (size << SHIFT) + ((127 - BIAS) << 23);
    if (size < 1u << MANTISSA) wide = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, SUBNORMAL | size) - __builtin_bit_cast(float, SUBNORMAL));
    if (size > LARGEST) wide = 0x7fc00000;
    else if (!SATURATES && size == LARGEST) wide = 0x7f800000;
    return __builtin_bit_cast(float, sign | wide);
  }
};
using f8e4m3 = Float8<4, true>;
using f8e5m2 = Float8<5, false>;

constexpr int MAX_RANK = 6;

struct Tensor {
  void* data;  // null for an operand that is absent
  DType dtype;
  int rank;
  int64_t dims[MAX_RANK];
  int64_t strides[MAX_RANK];  // in elements; 0 repeats one element
  template <class T> T* as() const { return static_cast<T*>(data); }
};

union Attribute {
  int64_t i;
  double f;
};

enum Flags : uint32_t { FLAG_FIRST = 1, FLAG_CHECK_FINITE = 2, FLAG_LAST = 4 };

/// One kernel call. `operands` are in the order of kernels.def: inputs, outputs, scratch.
struct Call {
  const Tensor* operands;
  int num_operands;
  const Attribute* attributes;  // in the order of kernels.def; an array is its length, then its words
  int num_attributes;
  uint32_t flags;
  int threads;
  const void* state = nullptr;  // what the kernel prepared for this call, if it prepares anything
  void* stream = nullptr;       // of the device, where it has streams
  const Tensor& operator[](int i) const { return operands[i]; }
  /// The `accumulate` attribute resolved: does this call add to what the output holds?
  bool adds(int64_t accumulate) const { return accumulate == 1 || (accumulate == 2 && !(flags & FLAG_FIRST)); }
};

struct Kernel {
  const char* name;
  /// Empty when the call is well formed; else why not. Runs once, at load. The loader has already held the call against kernels.def: operand
  /// and attribute counts, absent operands only where allowed, equal real dtypes (bf16 beside f32 where the operand may), scratch as 64-byte
  /// aligned bytes[n] of stride 1, dims and strides >= 0, views inside their buffers. Left to the kernel: ranks, dims, strides, i32 operands,
  /// attribute values, scratch size.
  /// `data` is a made-up address here: of the right alignment, equal for equal places, never to be followed.
  std::string (*check)(const Call&);
  /// Runs on the executor thread; may open parallel regions of `call.threads`; never allocates, never throws.
  void (*run)(const Call&);
  /// Optional, with `prepare`: how many bytes a call needs for what all its runs have in common.
  uint64_t (*state_bytes)(const Call&) = nullptr;
  /// Makes that, once for each instruction, when a program is loaded. The memory is the engine's: zeroed, 64-byte aligned, and freed with the program;
  /// nobody destroys what is in it. Operands in the host's buffers have made-up addresses here, and those in slots are in slot 0: each action may place
  /// them elsewhere, so a kernel may keep how far they are apart, but no address.
  void (*prepare)(const Call&, void* state) = nullptr;
};

struct Backend {
  const char* name;  // of the target, as programs have it
  const char* level;  // which of the variants that its kernels were compiled for
  int vector_bits;
  const Kernel* kernels;  // in the order of kernels.def
  int num_kernels;
};

}  // namespace titan
