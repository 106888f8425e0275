// A device: its engine, the thread that makes the engine work, and the ranks that it has joined.
#pragma once
#include <memory>
#include <mutex>

#include "engine.h"
#include "executor.h"

namespace titan {

struct Device {
  explicit Device(std::unique_ptr<Engine> engine, MemorySharing sharing = {}) : engine(std::move(engine)), memory_sharing(std::move(sharing)) {}

  const std::unique_ptr<Engine> engine;
  Executor executor;
  std::mutex mutex;
  MemorySharing memory_sharing;        // with the ranks of this host; under the mutex
  std::shared_ptr<comm::World> world;  // null where it works alone
};

/// Throws a Failure where there is no such device.
std::shared_ptr<Device> open_device(uint32_t kind, uint32_t ordinal, const titan_device_options& options);

}  // namespace titan
