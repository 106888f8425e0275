#include "open.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "../cpu/backend.h"
#include "module.h"

namespace titan::cuda {
namespace {

constexpr const char* FIX = "; expected: the module that was built with this library; fix: deno task setup --cuda, on a machine with NVIDIA's CUDA toolkit";

/// TITAN_CUDA, or beside this library.
std::string path_of_module() {
  if (const char* given = std::getenv("TITAN_CUDA"); given && *given) return given;
  Dl_info own;
  const std::string path = dladdr(reinterpret_cast<void*>(&titan_abi_version), &own) && own.dli_fname ? own.dli_fname : "";
  return path.substr(0, path.rfind('/') + 1) + "libtitan_cuda.so";
}

/// It stays open: engines, and failures on their way, are of its code.
const Module& open_module() {
  const std::string path = path_of_module();
  if (access(path.c_str(), F_OK)) throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("there is no module for GPUs, which would be ", path, FIX));
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("cannot open the module for GPUs: ", dlerror(), FIX));
  auto* function = reinterpret_cast<ModuleFunction*>(dlsym(library, "titan_cuda_module_of_this_library"));
  const Module* module = function ? function() : nullptr;
  if (!module || module->abi != MODULE_ABI) throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text(path, " is of another version", FIX));
  return *module;
}

}  // namespace

std::unique_ptr<Engine> open_engine(uint32_t ordinal, const titan_device_options& options) { return open_module().open(ordinal, options, cpu::choose_level().backend.kernels); }

}  // namespace titan::cuda
