// What libtitan asks of libtitan_cuda, a module that it opens when somebody wants a GPU: machines without one need nothing of it. Both are built
// together, by one compiler, so that an Engine and its Failures cross the border as they are.
#pragma once
#include <cstdint>

#include "../engine.h"

namespace titan::cuda {

/// Changes with anything that crosses the border: the two are of one build, or the module is refused.
constexpr uint64_t MODULE_ABI = TITAN_ABI_VERSION * 1000000 + sizeof(Program) * 1000 + sizeof(Call) + sizeof(Kernel);

struct Module {
  uint64_t abi;
  /// Opens the GPU of this number. `twins` is a table of kernels of CPUs, whose checks are those of GPUs too.
  std::unique_ptr<Engine> (*open)(uint32_t ordinal, const titan_device_options& options, const Kernel* twins);
};

/// The one function of the module's library.
using ModuleFunction = const Module*();
#define TITAN_CUDA_MODULE titan_cuda_module_of_this_library

}  // namespace titan::cuda
