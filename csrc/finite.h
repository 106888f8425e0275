// The check that a flag asks for: what an instruction has made is finite.
#pragma once
#include "program.h"

namespace titan {

/// The first element that is not finite, in row-major order, or -1.
template <class real> int64_t find_not_finite(const Tensor& tensor) {
  int64_t elements = 1;
  for (int d = 0; d < tensor.rank; d++) elements *= tensor.dims[d];
  const int64_t row = tensor.rank ? tensor.dims[tensor.rank - 1] : 1, stride = tensor.rank ? tensor.strides[tensor.rank - 1] : 0;
  for (int64_t start = 0; start < elements; start += row) {
    int64_t offset = 0, index = start;
    for (int d = tensor.rank - 1; d >= 0; d--) {
      offset += index % tensor.dims[d] * tensor.strides[d];
      index /= tensor.dims[d];
    }
    const real* data = tensor.as<real>() + offset;
    for (int64_t i = 0; i < row; i++)
      if (!(data[i * stride] - data[i * stride] == 0)) return start + i;
  }
  return -1;
}

/// Throws a Failure where an output of an instruction is infinite or NaN; `fetch` gives its elements to this process, as they lie.
template <class Fetch> void check_finite(const Program& program, uint64_t n, Fetch fetch) {
  const Instruction& instruction = program.instructions[n];
  for (int i = instruction.first_output; i < instruction.first_output + instruction.num_outputs; i++) {
    Tensor tensor = instruction.call[i];
    if (!tensor.data || tensor.dtype == DType::i32) continue;
    tensor.data = fetch(tensor);
    const int64_t element = tensor.dtype == DType::f32      ? find_not_finite<float>(tensor)
                            : tensor.dtype == DType::f64    ? find_not_finite<double>(tensor)
                            : tensor.dtype == DType::bf16   ? find_not_finite<bf16>(tensor)
                            : tensor.dtype == DType::f8e4m3 ? find_not_finite<f8e4m3>(tensor)
                            : tensor.dtype == DType::f8e5m2 ? find_not_finite<f8e5m2>(tensor)
                                                            : -1;
    if (element < 0) continue;
    throw program.failure(TITAN_STATUS_NOT_FINITE, n, text("instruction ", n, " (", instruction.kernel->name, " in ", instruction.scope, ") made output ",
                                                           program.operand_name(n, i), " infinite or NaN, first at element ", element));
  }
}

}  // namespace titan
