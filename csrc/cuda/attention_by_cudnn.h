// Calls of attention and its gradient without positions, which cuDNN runs: their queries and keys stand in the order of their positions.
#pragma once
#include "../backend.h"

namespace titan::cuda {

/// Has cuDNN run such calls of the two kernels; all others stay as they are.
void add_cudnn(Kernel& forward, Kernel& backward);

}  // namespace titan::cuda
