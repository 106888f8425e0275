// The CPU kernels, declared from kernels.def: csrc/cpu/ops/<name or family>.cpp defines check_NAME and run_NAME for each. Kernels are compiled
// once per processor level (levels.def), each time in a namespace of that name; checks once, where TITAN_CHECKS is defined, and for size (cold):
// they took a third of the time to build.
#pragma once
#include <string>

#include "../backend.h"

namespace titan::cpu {

#define MAP(name, arity)
#define KERNEL(name, operands, attributes, dtypes) __attribute__((cold)) std::string check_##name(const Call& call);
#include "../kernels.def"
#undef KERNEL

inline namespace TITAN_LEVEL {
#define KERNEL(name, operands, attributes, dtypes) void run_##name(const Call& call);
#include "../kernels.def"
#undef KERNEL
/// Those that prepare something when a program is loaded; the same files define state_bytes_NAME and prepare_NAME.
#define PREPARED_KERNELS PREPARED(map)
#define PREPARED(name) uint64_t state_bytes_##name(const Call& call); void prepare_##name(const Call& call, void* state);
PREPARED_KERNELS
#undef PREPARED
}  // namespace TITAN_LEVEL
#undef MAP

}  // namespace titan::cpu
