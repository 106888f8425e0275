// In a library for tests: kernels as in libtitan, but where TITAN_FAULT=kernel, memory runs out in the third update of a run.
#include <cstdlib>
#include <cstring>
#include <new>

#include "wrapped_level.h"

using titan::Call, titan::cpu::Choice;

namespace {

void (*update)(const Call& call);
int updates = 0;

}  // namespace

Choice wrapped() {
  const Choice choice = chosen();
  const char* fault = std::getenv("TITAN_FAULT");
  if (!fault || std::strcmp(fault, "kernel")) return choice;
  return titan::test::with_kernel(choice, "adamw", [](const Call& call) { ++updates < 3 ? update(call) : throw std::bad_alloc(); }, update);
}
