#include "device.h"

#include <algorithm>
#include <iterator>

#include "cpu/engine.h"
#include "cuda/open.h"

namespace titan {
namespace {

/// The engines of this build, in the order of titan_device_kind.
constexpr std::unique_ptr<Engine> (*ENGINES[])(uint32_t ordinal, const titan_device_options& options) = {cpu::open_engine, cuda::open_engine};

}  // namespace

std::shared_ptr<Device> open_device(uint32_t kind, uint32_t ordinal, const titan_device_options& options) {
  if (kind >= std::size(ENGINES)) throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("the device kind is ", kind, "; expected: 0 (cpu) or 1 (cuda)"));
  return std::make_shared<Device>(ENGINES[kind](ordinal, options), MemorySharing{std::max(1, static_cast<int>(options.host_size)), {}});
}

}  // namespace titan
