// How the streams of a program wait for each other on a GPU: an event for each instruction that another stream waits for, made when the program is loaded
// and recorded again by each action. The host puts the actions of a run into the streams in their order. So the recording that an event has when somebody
// waits for it is that of the last action, or of the same one; where only actions of one slot count, there is an event for each slot.
//
// What was recorded before a barrier, which orders all that comes behind it, is waited for no more.
#pragma once
#include <deque>

#include "../program.h"
#include "resources.h"

namespace titan::cuda {

class StreamWaits {
 public:
  explicit StreamWaits(const Program& program);
  void barrier() { since_++; }
  /// Has a stream wait for what an instruction waits for, of its own action, of earlier ones, or both.
  enum Of { own = 1, earlier = 2, all = 3 };
  void wait(const Instruction& instruction, const titan_action& action, cudaStream_t stream, Of of);
  /// The stream has come so far: an instruction of an action is behind it.
  void record(uint64_t instruction, const titan_action& action, cudaStream_t stream);

 private:
  struct Mark {
    Event event;
    uint64_t since = 0;  // how many barriers there were before its recording; there is always one
  };
  void wait(const Mark& mark, cudaStream_t stream) const;
  void record(Mark& mark, cudaStream_t stream);

  const Program& program_;
  std::vector<uint64_t> awaited_;                   // by wait: the instruction
  std::deque<Mark> marks_;
  std::vector<Mark*> last_;                         // by instruction; null where nobody waits for it
  std::vector<std::vector<Mark*>> last_in_slot_;    // by instruction and slot; empty likewise
  uint64_t since_ = 1;
};

}  // namespace titan::cuda
