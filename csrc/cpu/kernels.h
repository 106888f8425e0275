// The CPU kernels, declared from kernels.def: csrc/cpu/ops/<name or family>.cpp defines check_NAME and run_NAME for each.
#pragma once
#include <string>

#include "../backend.h"

namespace titan::cpu {

#define KERNEL(name, operands, attributes, dtypes) \
  std::string check_##name(const Call& call);      \
  void run_##name(const Call& call);
#define MAP(name, arity)
#include "../kernels.def"
#undef KERNEL
#undef MAP

}  // namespace titan::cpu
