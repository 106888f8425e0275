// The collectives of a program on a GPU: launches them, keeps the record of those under way that other ranks see (the flight recorder), and has the host
// wait by asking again and again. So the host notices when another rank or the exchange has failed, or nothing goes on any more: then no stream would
// ever come to its end.
//
// A collective is under way from when it is launched until the host sees that it has ended; one in a graph, until the graph has. A time-out counts from
// when the host has last seen one end, and includes the kernels that run before it.
#pragma once
#include <deque>
#include <memory>

#include "../program.h"
#include "collectives.h"
#include "resources.h"

namespace titan::cuda {

class CollectiveLauncher {
 public:
  /// All ranks agree on the program's collectives.
  CollectiveLauncher(comm::Ranks& ranks, const Program& program, int num_kernels);
  /// The arena is there; the program is bound to it.
  void open(char* arena);

  void begin_run();
  void end_run() { has_run_ = true; }
  /// Puts a collective into a stream for an action, unless that leaves it out.
  void launch(const Instruction& instruction, const titan_action& action, cudaStream_t stream);
  /// Those of an action that are launched by `launch`, one by one or in a graph, are now under way, until the stream has come to where it is now:
  /// that of one instruction, or of all.
  void note(const titan_action& action, uint64_t first_instruction, uint64_t num_instructions, cudaStream_t stream);
  /// Returns when an event of the run is done. Throws a Failure that names the collective which will not end.
  void wait_for(const Event& event);
  /// After a failure of this rank or another: nothing stays under way.
  void abort(const char* why) noexcept;

 private:
  struct UnderWay {
    comm::Launched launched;
    uint64_t section, instruction;
    cudaEvent_t ended;
  };
  bool is_left_out(const comm::Collective& collective, const titan_action& action) const;
  /// Takes note of those that have ended.
  void look();

  comm::Ranks& ranks_;
  const Program& program_;
  const int num_kernels_;
  std::vector<comm::Collective> collectives_;  // in the order of their instructions
  std::vector<comm::Group*> groups_;           // by collective
  std::vector<size_t> numbers_;                // of their groups, by collective
  std::unique_ptr<Collectives> exchange_;
  char* slots_ = nullptr;
  std::deque<Event> events_;
  size_t used_events_ = 0;
  std::vector<UnderWay> under_way_;  // of the run, in their order
  size_t ended_ = 0;                 // the first of them
  uint64_t since_ns_ = 0;            // when the last ended
  bool has_run_ = false;
};

}  // namespace titan::cuda
