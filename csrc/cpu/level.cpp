// The table of one level's kernels. Like the kernels themselves, this file is compiled once per level.
#include <string_view>

#include "backend.h"
#include "kernels.h"
#include "simd.h"

#define PASTE(a, b) a##b
#define NAME_OF(level) PASTE(level_, level)
#define TEXT(x) #x
#define TEXT_OF(level) TEXT(level)

namespace titan::cpu {
namespace {

constexpr Kernel prepared(Kernel kernel) {
#define PREPARED(it) \
  if (std::string_view(kernel.name) == #it) kernel.state_bytes = state_bytes_##it, kernel.prepare = prepare_##it;
  PREPARED_KERNELS
#undef PREPARED
  return kernel;
}

constexpr Kernel KERNELS[] = {
#define KERNEL(name, operands, attributes, dtypes) prepared({#name, check_##name, run_##name, nullptr, nullptr}),
#define MAP(name, arity)
#include "../kernels.def"
#undef KERNEL
#undef MAP
};

}  // namespace

extern const Backend NAME_OF(TITAN_LEVEL);
const Backend NAME_OF(TITAN_LEVEL) = {"cpu", TEXT_OF(TITAN_LEVEL), VECTOR_BYTES * 8, KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace titan::cpu
