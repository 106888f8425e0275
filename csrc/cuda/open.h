// Finds the module libtitan_cuda, and has it open a GPU.
#pragma once
#include <memory>

#include "../engine.h"

namespace titan::cuda {

/// Throws a Failure that says what is missing, and how to get it.
std::unique_ptr<Engine> open_engine(uint32_t ordinal, const titan_device_options& options);

}  // namespace titan::cuda
