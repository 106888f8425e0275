// The CPU backend: its kernels are csrc/cpu/ops/*.cpp, compiled once per processor level (levels.def).
#pragma once
#include "../backend.h"
#include "../titan.h"

namespace titan::cpu {

struct Choice {
  const Backend& backend;
  bool forced;  // by TITAN_CPU
};

/// The backend of the level that the environment variable TITAN_CPU names, else of the best that this machine has.
/// Throws a Failure where TITAN_CPU names a level that is unknown, was not built or is not supported here, or TITAN_PRODUCT what cannot multiply.
Choice choose_level();

/// Fills in what all levels have in common: processor and BLAS.
void describe(titan_device_info& info);

}  // namespace titan::cpu
