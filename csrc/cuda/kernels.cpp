#include "kernels.h"

#include <cstring>

namespace titan::cuda {
namespace {

std::string (*check_map_of_twin)(const Call&);
std::string check_map(const Call& call) {
  const std::string error = check_map_of_twin(call);
  return error.empty() ? refuse_map(call) : error;
}

}  // namespace

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
    if (!std::strcmp(table[i].name, "map")) check_map_of_twin = twins[i].check, table[i].check = check_map;
  }
  return table;
}

}  // namespace titan::cuda
