// The CUDA runtime that the engine calls: by the toolkit's own header, or by ours, of the same functions, where the runtime is played on a CPU.
#pragma once
#ifdef TITAN_PLAYED_RUNTIME
#include "host/api.h"
#else
#include <cuda_runtime_api.h>
#endif
