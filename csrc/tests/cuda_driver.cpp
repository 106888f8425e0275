// What cuDNN asks of NVIDIA's driver while it makes a plan for a GPU that is not here: it takes kernels, and runs none. In the place of libcuda.so.1, for
// cudnn_plans alone.
extern "C" {

constexpr int SUCCESS = 0, NO_DEVICE = 100;

static char something;
static int give(void** handle) { return *handle = &something, SUCCESS; }
int cuLibraryLoadData(void** library) { return give(library); }
int cuLibraryGetKernel(void** kernel) { return give(kernel); }
int cuKernelGetFunction(void** function) { return give(function); }
int cuModuleLoadData(void** module) { return give(module); }
int cuModuleGetFunction(void** function) { return give(function); }
int cuKernelGetAttribute(int* value) { return *value = 0, SUCCESS; }
int cuKernelSetAttribute() { return SUCCESS; }
int cuOccupancyMaxPotentialClusterSize(int* size) { return *size = 8, SUCCESS; }
int cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
int cuLibraryUnload() { return SUCCESS; }
int cuModuleUnload() { return SUCCESS; }

// The rest it looks for, and does not call.
#define NEVER_CALLED(name) \
  int name() { return NO_DEVICE; }
NEVER_CALLED(cuCtxGetCurrent)
NEVER_CALLED(cuCtxGetLimit)
NEVER_CALLED(cuCtxPopCurrent)
NEVER_CALLED(cuCtxPushCurrent)
NEVER_CALLED(cuDeviceGet)
NEVER_CALLED(cuDeviceGetCount)
NEVER_CALLED(cuGetErrorName)
NEVER_CALLED(cuGetErrorString)
NEVER_CALLED(cuLaunchCooperativeKernel)
NEVER_CALLED(cuLaunchKernel)
NEVER_CALLED(cuLaunchKernelEx)
NEVER_CALLED(cuLibraryLoadFromFile)
NEVER_CALLED(cuLinkAddData)
NEVER_CALLED(cuLinkComplete)
NEVER_CALLED(cuLinkCreate)
NEVER_CALLED(cuLinkDestroy)
NEVER_CALLED(cuStreamGetCtx)
NEVER_CALLED(cuTensorMapEncodeIm2col)
NEVER_CALLED(cuTensorMapEncodeTiled)
}
