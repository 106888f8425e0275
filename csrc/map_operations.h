// The element-wise operations of `map`, with the numbers that programs have for them.
#pragma once

namespace titan {

enum MapOperation {
#define KERNEL(name, operands, attributes, dtypes)
#define MAP(name, arity) MAP_##name,
#include "kernels.def"
#undef MAP
#undef KERNEL
  MAP_COUNT
};

}  // namespace titan
