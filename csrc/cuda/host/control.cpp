// The played runtime for tests in another language, which load a whole model through libtitan: they find these functions in libtitan_cuda_emulated.
#include <iterator>

#include "runtime.h"

#define SHOWN extern "C" __attribute__((visibility("default")))

/// From now on, calls are counted anew, and the one of this number fails, among those of one function where it is named; none where the number is negative.
SHOWN void titan_played_gpu_fails(int64_t call, const char* function) { titan::cuda::host::play({.fails = call, .fails_of = function ? function : ""}); }
SHOWN int64_t titan_played_gpu_calls() { return titan::cuda::host::played().calls; }
/// How many calls a function has had, for each in the order of their names; null behind the last.
SHOWN const char* titan_played_gpu_calls_of(uint64_t number, int64_t* calls) {
  static std::map<std::string, int64_t> functions;
  functions = titan::cuda::host::played().calls_of;
  if (number >= functions.size()) return nullptr;
  const auto& [name, count] = *std::next(functions.begin(), static_cast<ptrdiff_t>(number));
  *calls = count;
  return name.c_str();
}
/// What has not been given back.
SHOWN int64_t titan_played_gpu_left() { return titan::cuda::host::left(); }
/// The function whose call failed as it was asked to; empty where none has.
SHOWN const char* titan_played_gpu_failed() {
  static std::string failed;
  return (failed = titan::cuda::host::played().last_call).c_str();
}
