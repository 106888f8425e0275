// The signatures of kernels.def, parsed: what a call of a kernel must look like.
#pragma once
#include <string>
#include <vector>

#include "backend.h"

namespace titan {

/// The operations of `map`, with the numbers that programs have for them.
enum MapOperation {
#define KERNEL(name, operands, attributes, dtypes)
#define MAP(name, arity) MAP_##name,
#include "kernels.def"
#undef MAP
#undef KERNEL
  MAP_COUNT
};

struct Signature {
  struct Operand {
    std::string name;
    bool variadic, optional, bf16, float8;  // optional: may be absent, or (variadic) have no members; the others: may be stored so where the call's reals are f32
  };
  struct Attribute {
    std::string name;
    bool array;
  };
  std::string name;
  std::vector<Operand> inputs, outputs;
  bool scratch = false;
  std::vector<Attribute> attributes;
  std::vector<DType> dtypes;
  std::string dtypes_text;  // "f32 or f64"
};

/// In the order of kernels.def.
const std::vector<Signature>& signatures();

/// How many operands of a call are inputs and outputs; the rest is the scratch.
struct Split {
  int inputs, outputs;
};

/// Holds a call of `num_operands` and the given attribute words against a signature. Returns why they do not fit, or an empty text.
std::string split_operands(const Signature& signature, int64_t num_operands, const titan::Attribute* words, int64_t num_words, Split* split);

/// Name of operand i as messages show it: "q", or "x[2]" of a variadic group. `split` is that of the call.
std::string operand_name(const Signature& signature, Split split, int i);

/// May operand i be absent?
bool operand_optional(const Signature& signature, Split split, int i);

/// If a type is only a way to store, may operand i be stored so?
bool operand_stored(const Signature& signature, Split split, int i, DType dtype);

}  // namespace titan
