// How a kernel is launched: by nvcc's <<<>>> on the call's stream, or, where the host compiler compiles this, by the emulator of host/.
#pragma once
#include <iterator>
#include <vector>

#include "../backend.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
/// A parameter that is too large to be copied by each thread.
#define TITAN_PARAMETER(type) const __grid_constant__ type
#else
#include "host/emulator.h"
#include "host/played_kernel.h"
#define TITAN_PARAMETER(type) const type&
#endif

namespace titan::cuda {

/// Blocks of a grid, threads of a block, and a block's dynamic shared memory; the caller's name is for messages.
struct Shape {
  dim3 grid, block;
  unsigned shared_bytes;
  const char* caller;
  Shape(dim3 grid, dim3 block, unsigned shared_bytes = 0, const char* caller = __builtin_FUNCTION()) : grid(grid), block(block), shared_bytes(shared_bytes), caller(caller) {}
};

/// A block's dynamic shared memory.
__device__ inline char* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) char memory[];
  return memory;
#else
  return host::dynamic_shared_memory;
#endif
}

/// Nothing is launched where the grid is empty, which CUDA refuses.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Shape& shape, const Call& call, const Arguments&... arguments) {
  if (!shape.grid.x || !shape.grid.y || !shape.grid.z) return;
  // More than that has to be allowed. Where it is refused, so is the launch, and the engine asks that.
  if (shape.shared_bytes > 48 << 10) cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(shape.shared_bytes));
#ifdef __CUDACC__
  kernel<<<shape.grid, shape.block, shape.shared_bytes, static_cast<cudaStream_t>(call.stream)>>>(arguments...);
#else
  const auto run = [](auto kernel, const Shape& shape, const Call& call, const auto&... arguments) {
    const auto body = [&, kernel] { kernel(arguments...); };
    const host::Range parameters[] = {{&body, sizeof body}, {&arguments, sizeof arguments}...};
    host::launch({shape.grid, shape.block, shape.shared_bytes, reinterpret_cast<const void*>(kernel), shape.caller}, call, parameters, int(std::size(parameters)), [](const void* context) { (*static_cast<decltype(&body)>(context))(); }, &body);
  };
  if (!host::defer) return run(kernel, shape, call, arguments...);
  // Until then the program places its operands for other actions.
  host::defer(call.stream, [=, call = call, operands = std::vector<Tensor>(call.operands, call.operands + call.num_operands)]() mutable {
    call.operands = operands.data();
    run(kernel, shape, call, arguments...);
    return host::take_error();
  });
#endif
}

/// The same of a kernel with one parameter, of this type, that was compiled from its source: a cudaKernel_t, which CUDA launches as it does functions.
template <class Parameter>
void launch_compiled(const void* kernel, const Shape& shape, const Call& call, const Parameter& parameter) {
#ifdef __CUDACC__
  if (!shape.grid.x) return;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid, config.blockDim = shape.block, config.stream = static_cast<cudaStream_t>(call.stream);
  void* arguments[] = {const_cast<Parameter*>(&parameter)};
  (void)cudaLaunchKernelExC(&config, kernel, arguments);  // the engine asks for the error, as behind <<<>>>
#else
  const auto& played = *static_cast<const host::PlayedKernel*>(kernel);
  *played.hooks = {&host::place, host::accessed};
  launch(reinterpret_cast<void (*)(Parameter)>(played.function), shape, call, parameter);
#endif
}

}  // namespace titan::cuda
