// Kernels from source, by NVRTC: compiled for the GPU at load, each source once in a process, and kept in the user's cache for the next.
#pragma once
#include <string>

namespace titan::cuda {

/// A kernel that another thread compiles meanwhile. It stays as long as the process.
struct CompiledKernel;

/// Begins with the kernel of this name in a source for NVRTC, which may include backend.h and map_formulas.h, for the current GPU. The same again is one.
const CompiledKernel& compile_kernel(const std::string& name, const std::string& source);

/// What launches are given. Waits until it is there. @throws Failure with NVRTC's log.
const void* wait_for(const CompiledKernel& kernel);

/// A source's machine code for an architecture such as sm_90. @throws Failure with NVRTC's log. `log`, if it is given, gets what the compiler says of
/// registers.
std::string compile_source(const std::string& name, const std::string& source, const std::string& architecture, std::string* log = nullptr);

/// The same, out of the user's cache if it is there: XDG_CACHE_HOME, else .cache in HOME. What is there is this source's, whole, or it is not used.
std::string cached_code(const std::string& name, const std::string& source, const std::string& architecture);

}  // namespace titan::cuda
