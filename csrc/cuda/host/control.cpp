// The played runtime for tests in another language, which load a whole model through libtitan: they find these functions in libtitan_cuda_emulated.
#include "runtime.h"

#define SHOWN extern "C" __attribute__((visibility("default")))

/// From now on, calls are counted anew, and the one of this number fails; none where it is negative.
SHOWN void titan_played_gpu_fails(int64_t call) { titan::cuda::host::play({.fails = call}); }
SHOWN int64_t titan_played_gpu_calls() { return titan::cuda::host::played().calls; }
/// What has not been given back.
SHOWN int64_t titan_played_gpu_left() { return titan::cuda::host::left(); }
