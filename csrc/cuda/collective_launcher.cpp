#include "collective_launcher.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "../clock.h"

namespace titan::cuda {
namespace {

constexpr auto PAUSE = std::chrono::microseconds(50);
constexpr uint64_t CHECK_NS = 2'000'000;  // between two looks at the other ranks

std::vector<comm::Collective> collectives_of(const Program& program, int num_kernels) {
  std::vector<comm::Collective> list;
  for (const Instruction& instruction : program.instructions)
    if (!instruction.kernel->run) list.push_back(comm::read_collective(static_cast<int>(instruction.index) - num_kernels, instruction.call));
  return list;
}

}  // namespace

CollectiveLauncher::CollectiveLauncher(comm::Ranks& ranks, const Program& program, int num_kernels)
    : ranks_(ranks), program_(program), num_kernels_(num_kernels), collectives_(collectives_of(program, num_kernels)), groups_(ranks.agree(collectives_)) {}

void CollectiveLauncher::open(char* arena) {
  collectives_ = collectives_of(program_, num_kernels_);  // now with their addresses
  slots_ = arena + program_.slots_begin();
  Exchange exchange{{}, arena, program_.arena_bytes};
  for (const comm::Collective& collective : collectives_) {
    const auto known = std::find(exchange.groups.begin(), exchange.groups.end(), collective.ranks);
    numbers_.push_back(static_cast<size_t>(known - exchange.groups.begin()));
    if (known == exchange.groups.end()) exchange.groups.push_back(collective.ranks);
  }
  exchange_ = open_collectives(ranks_, exchange);
}

void CollectiveLauncher::begin_run() {
  used_events_ = ended_ = 0;
  under_way_.clear();
  since_ns_ = now_ns();
}

bool CollectiveLauncher::is_left_out(const comm::Collective& collective, const titan_action& action) const {
  return (collective.first && !(action.flags & FLAG_FIRST)) || (collective.last && !(action.flags & FLAG_LAST));
}

void CollectiveLauncher::launch(const Instruction& instruction, const titan_action& action, cudaStream_t stream) {
  comm::Collective& collective = collectives_[instruction.collective];
  if (is_left_out(collective, action)) return;
  collective.move(slots_, program_.slot_bytes, action.slot);
  exchange_->launch(collective, numbers_[instruction.collective], stream);
}

void CollectiveLauncher::note(const titan_action& action, uint64_t first_instruction, uint64_t num_instructions, cudaStream_t stream) {
  if (used_events_ == events_.size()) events_.push_back(make_event());
  const cudaEvent_t ended = events_[used_events_].get();
  const size_t before = under_way_.size();
  for (uint64_t n = first_instruction; n < first_instruction + num_instructions; n++) {
    const Instruction& instruction = program_.instructions[n];
    if (instruction.kernel->run || is_left_out(collectives_[instruction.collective], action)) continue;
    under_way_.push_back({{&collectives_[instruction.collective], groups_[instruction.collective], &instruction.scope, 0}, action.section, n, ended});
    ranks_.launched(under_way_.back().launched);
  }
  if (under_way_.size() == before) return;
  used_events_++;
  TITAN_CUDA_CHECK(cudaEventRecord(ended, stream));
}

void CollectiveLauncher::look() {
  for (; ended_ < under_way_.size(); ended_++) {
    if (!is_done(under_way_[ended_].ended, "a collective")) return;
    ranks_.ended(under_way_[ended_].launched);
    since_ns_ = now_ns();
  }
}

void CollectiveLauncher::wait_for(const Event& event) {
  for (uint64_t checked_ns = now_ns();;) {
    const bool done = is_done(event.get(), "the kernels of a run");
    look();
    if (done) return;
    if (ended_ < under_way_.size() && now_ns() > checked_ns + CHECK_NS) {
      checked_ns = now_ns();
      const UnderWay& first = under_way_[ended_];
      try {
        ranks_.check(first.launched, since_ns_, !has_run_, exchange_->error());
      } catch (...) {
        throw program_.caught(first.section, first.instruction);
      }
    }
    std::this_thread::sleep_for(PAUSE);
  }
}

void CollectiveLauncher::abort(const char* why) noexcept {
  ranks_.give_up(why);
  exchange_->abort();
}

}  // namespace titan::cuda
