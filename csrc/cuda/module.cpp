// The module libtitan_cuda, as libtitan sees it: its one function, and the table of its kernels.
#include "module.h"

#include "engine.h"
#include "kernels.h"
#ifdef TITAN_PLAYED_RUNTIME
#include "host/emulator.h"
#include "host/traced.h"
#endif

namespace titan::cuda {
namespace {

const Backend& backend_of(const Kernel* twins) {
  static const auto table = kernels(twins);
  static const Backend backend = {"cuda", "sm_80", 0, table.data(), NUM_KERNELS};
#ifdef TITAN_PLAYED_RUNTIME
  host::defer = host::submit;
  return host::traced(backend);
#else
  return backend;
#endif
}

std::unique_ptr<Engine> open_gpu(uint32_t ordinal, const titan_device_options& options, const Kernel* twins) {
  return std::make_unique<CudaEngine>(backend_of(twins), ordinal, options);
}

}  // namespace
}  // namespace titan::cuda

extern "C" __attribute__((visibility("default"))) const titan::cuda::Module* TITAN_CUDA_MODULE() {
  static const titan::cuda::Module module = {titan::cuda::MODULE_ABI, titan::cuda::open_gpu};
  return &module;
}
