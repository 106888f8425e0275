#include "kernels.h"

#include <algorithm>
#include <cstring>

#include "attention_by_cudnn.h"

namespace titan::cuda {

std::array<Kernel, NUM_KERNELS> kernels(const Kernel* twins) {
  std::array<Kernel, NUM_KERNELS> table = {{
#define MAP(name, arity)
#define KERNEL(name, operands, attributes, dtypes) {#name, nullptr, run_##name},
#include "../kernels.def"
#undef KERNEL
#undef MAP
  }};
  for (size_t i = 0; i < table.size(); i++) {
    table[i].check = twins[i].check;
    if (!std::strcmp(table[i].name, "map")) table[i].state_bytes = state_bytes_of_map, table[i].prepare = prepare_map;
  }
  const auto named = [&](const char* name) -> Kernel& { return *std::find_if(table.begin(), table.end(), [&](const Kernel& kernel) { return !std::strcmp(kernel.name, name); }); };
  add_cudnn(named("attention"), named("attention_backward"));
  return table;
}

}  // namespace titan::cuda
