// The CPU backend: its kernels are csrc/cpu/ops/*.cpp.
#pragma once
#include "../backend.h"

namespace titan::cpu {

extern const Backend backend;

}  // namespace titan::cpu
