#include "backend.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../failure.h"
#include "arm.h"
#include "blas.h"
#include "grants.h"

namespace titan::cpu {

#define LEVEL(name, features) extern const Backend level_##name;
#include "built_levels.def"
#undef LEVEL

namespace {

struct Level {
  const Backend& backend;
  bool supported;
};

/// The processor's name by /proc/cpuinfo; where there is none, the architecture's.
std::string processor_name() {
  std::string name;
  if (FILE* file = std::fopen("/proc/cpuinfo", "r")) {
    char line[512];
    while (name.empty() && std::fgets(line, sizeof line, file))
      if (std::strncmp(line, "model name", 10) == 0 && std::strchr(line, ':')) name = std::strchr(line, ':') + 2;
    std::fclose(file);
  }
  while (!name.empty() && name.back() <= ' ') name.pop_back();
#if defined(__aarch64__)
  return name.empty() ? "aarch64" : name;
#else
  return name.empty() ? "x86_64" : name;
#endif
}

}  // namespace

Choice choose_level() {
  const Level levels[] = {
#define HAS(feature) &&__builtin_cpu_supports(#feature)
#define ARM(feature) &&arm_has_##feature()
#define GRANTED(what) &&grants_##what()
#define LEVEL(name, features) {level_##name, true features},
#include "built_levels.def"
#undef LEVEL
#undef GRANTED
#undef ARM
#undef HAS
  };
  const char* wanted = std::getenv("TITAN_CPU");
  const bool forced = wanted && *wanted;
  bool known = false;
  std::string supported;
  for (const Level& level : levels) {
    if (level.supported && (!forced || level.backend.level == std::string(wanted))) {
      choose_multiplier(level.backend.vector_bits);  // a wrong choice is refused here, not in the first product
      return {level.backend, forced};
    }
    if (level.supported) supported += (supported.empty() ? "" : ", ") + std::string(level.backend.level);
    known |= forced && level.backend.level == std::string(wanted);
  }
  throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("TITAN_CPU is ", wanted, known ? ", a level that this machine does not support" : ", no level of this library", "; expected: one of ",
                                                    supported, "; fix: set it to one of these, or unset it to get the best"));
}

void describe(titan_device_info& info) {
  std::snprintf(info.processor, sizeof info.processor, "%s", processor_name().c_str());
  std::snprintf(info.product, sizeof info.product, "%s", multiplier_text(static_cast<int>(info.vector_bits)).c_str());
}

}  // namespace titan::cpu
