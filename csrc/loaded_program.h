// A program that is loaded on a device: who may run it with which actions and buffers, and who may touch its arena meanwhile.
#pragma once
#include <memory>
#include <string>

#include "access.h"
#include "device.h"
#include "file.h"

namespace titan {

class LoadedProgram {
 public:
  /// Loads it. Where that fails, the other ranks get to know.
  static std::shared_ptr<LoadedProgram> load(const std::shared_ptr<Device>& device, const uint8_t* bytes, uint64_t num_bytes);
  LoadedProgram(std::shared_ptr<Device> device, const uint8_t* bytes, uint64_t num_bytes);

  void run(const titan_action* actions, uint64_t num_actions, const Host& host);
  /// The next run writes a record per instruction here.
  void profile(titan_profile_record* records, uint64_t capacity);
  /// On the calling thread, beside sections that do not write there.
  void read(uint64_t offset, uint8_t* bytes, uint64_t num_bytes);
  /// On the calling thread, while no section runs.
  void write(uint64_t offset, const uint8_t* bytes, uint64_t num_bytes);
  /// Reads parts of files into the arena: on the calling thread, while no section runs.
  void load(Part* parts, int num_parts, uint64_t num_bytes, uint8_t* hashes);
  titan_memory memory() const;

 private:
  void check_action(const titan_action& action, uint64_t i, const Host& host) const;
  void check_capacity(const titan_action* actions, uint64_t num_actions, uint64_t capacity) const;
  Range range(uint64_t offset, uint64_t num_bytes) const;

  std::shared_ptr<Device> device_;
  Program program_;
  std::shared_ptr<comm::World> world_;  // null where the program has no collectives
  std::unique_ptr<DeviceProgram> loaded_;
  Access access_;
  titan_profile_record* records_ = nullptr;  // of the next run; only the executor's thread looks at these
  uint64_t record_capacity_ = 0;
};

}  // namespace titan
