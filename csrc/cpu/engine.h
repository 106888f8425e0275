// The engine of CPUs: kernels run on the team of the executor's thread, on memory of this process.
#pragma once
#include <string>

#include "../engine.h"
#include "backend.h"
#include "team.h"

namespace titan::cpu {

class CpuEngine : public Engine {
 public:
  CpuEngine(const Choice& choice, const Threads& threads) : Engine(choice.backend, threads.number), level_is_forced_(choice.forced), threads_text_(threads.why), team_(threads.number) {}

  void describe(titan_device_info& info) const override;
  MemoryLimit memory(const MemorySharing& sharing) const override { return memory_of(sharing); }
  void bind(const std::vector<Core>& cores) override;
  double measure(titan_measure measure, int64_t n, int threads) override;
  std::unique_ptr<DeviceProgram> load(Program& program, comm::World* world) override;
  const Team& team() const { return team_; }
  /// A process alone on its host has its threads on cores of their own, where that is better.
  void bind_alone();

 private:
  const bool level_is_forced_;
  std::string threads_text_;  // why so many threads, and where they run
  Team team_;
};

std::unique_ptr<Engine> open_engine(uint32_t ordinal, const titan_device_options& options);

}  // namespace titan::cpu
