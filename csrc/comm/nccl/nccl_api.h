// The functions of NCCL that are called: by NVIDIA's own header, or by ours, of the same functions, where NCCL is played on CPUs.
#pragma once
#ifdef TITAN_PLAYED_RUNTIME
#include "../../cuda/host/nccl.h"
#else
#include <nccl.h>
#endif
