// Kernels whose launches tell the played runtime what they read and write, by the signatures of kernels.def.
#pragma once
#include <utility>

#include "../../signature.h"
#include "runtime.h"

namespace titan::cuda::host {

constexpr int NUM_TRACED = 0
#define KERNEL(name, operands, attributes, dtypes) +1
#define MAP(name, arity)
#include "../../kernels.def"
#undef KERNEL
#undef MAP
    ;

/// The table that `traced` was given.
inline const Kernel* traced_kernels = nullptr;

template <size_t index> void run_traced(const Call& call) {
  const Signature& signature = signatures()[index];
  Split split{};
  split_operands(signature, call.num_operands, call.attributes, call.num_attributes, &split);
  const Submitting submitting(call, split.inputs, signature.name.c_str());
  traced_kernels[index].run(call);
}

/// A backend of the same kernels; one in a process.
inline const Backend& traced(const Backend& backend) {
  static Kernel kernels[NUM_TRACED];
  static const Backend own = {backend.name, backend.level, backend.vector_bits, kernels, NUM_TRACED};
  traced_kernels = backend.kernels;
  [&]<size_t... index>(std::index_sequence<index...>) {
    ((kernels[index] = backend.kernels[index], kernels[index].run = run_traced<index>), ...);
  }(std::make_index_sequence<NUM_TRACED>());
  return own;
}

}  // namespace titan::cuda::host
