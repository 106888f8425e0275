#include "backend.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "../titan.h"
#include "blas.h"
#include "kernels.h"
#include "simd.h"

namespace titan::cpu {
namespace {

const Kernel KERNELS[] = {
#define KERNEL(name, operands, attributes, dtypes) {#name, check_##name, run_##name},
#define MAP(name, arity)
#include "../kernels.def"
#undef KERNEL
#undef MAP
};

/// The processor's name by /proc/cpuinfo; where there is none, the architecture's.
std::string processor_name() {
  std::string name;
  if (FILE* file = std::fopen("/proc/cpuinfo", "r")) {
    char line[512];
    while (name.empty() && std::fgets(line, sizeof line, file))
      if (std::strncmp(line, "model name", 10) == 0 && std::strchr(line, ':')) name = std::strchr(line, ':') + 2;
    std::fclose(file);
  }
  while (!name.empty() && name.back() <= ' ') name.pop_back();
#if defined(__aarch64__)
  return name.empty() ? "aarch64" : name;
#else
  return name.empty() ? "x86_64" : name;
#endif
}

void describe(titan_device_info& info) {
  info.vector_bits = VECTOR_BYTES * 8;
  info.blas_is_builtin = blas_is_builtin();
  std::snprintf(info.processor, sizeof info.processor, "%s", processor_name().c_str());
  std::snprintf(info.blas, sizeof info.blas, "%s", blas_name());
}

}  // namespace

const Backend backend = {"cpu", KERNELS, sizeof KERNELS / sizeof *KERNELS, describe};

}  // namespace titan::cpu
