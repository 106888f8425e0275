#include "stream_waits.h"

namespace titan::cuda {

StreamWaits::StreamWaits(const Program& program) : program_(program), last_(program.instructions.size()), last_in_slot_(program.instructions.size()) {
  const auto make_mark = [&] { return &marks_.emplace_back(Mark{make_event()}); };
  for (const Wait& wait : program.waits) {
    const Section& section = program.sections[wait.section];
    uint64_t n = section.first_instruction, position = 0;
    while ((position += program.instructions[n].stream == wait.stream) < wait.position) n++;
    awaited_.push_back(n);
    if (wait.same_action || !wait.in_slot) {
      if (!last_[n]) last_[n] = make_mark();
    } else if (last_in_slot_[n].empty()) {
      for (uint64_t slot = 0; slot < program.slots; slot++) last_in_slot_[n].push_back(make_mark());
    }
  }
}

void StreamWaits::wait(const Mark& mark, cudaStream_t stream) const {
  if (mark.since == since_) TITAN_CUDA_CHECK(cudaStreamWaitEvent(stream, mark.event.get(), 0));
}

void StreamWaits::record(Mark& mark, cudaStream_t stream) {
  TITAN_CUDA_CHECK(cudaEventRecord(mark.event.get(), stream));
  mark.since = since_;
}

void StreamWaits::wait(const Instruction& instruction, const titan_action& action, cudaStream_t stream, Of of) {
  for (uint64_t w = instruction.first_wait; w < instruction.first_wait + instruction.num_waits; w++) {
    const Wait& wanted = program_.waits[w];
    const uint64_t n = awaited_[w];
    if (!(of & (wanted.same_action ? own : earlier))) continue;
    if (wanted.same_action || !wanted.in_slot) {
      wait(*last_[n], stream);
      continue;
    }
    wait(*last_in_slot_[n][action.slot], stream);
    if (action.source != action.slot) wait(*last_in_slot_[n][action.source], stream);
  }
}

void StreamWaits::record(uint64_t instruction, const titan_action& action, cudaStream_t stream) {
  if (last_[instruction]) record(*last_[instruction], stream);
  if (last_in_slot_[instruction].empty()) return;
  record(*last_in_slot_[instruction][action.slot], stream);
  if (action.source != action.slot) record(*last_in_slot_[instruction][action.source], stream);
}

}  // namespace titan::cuda
