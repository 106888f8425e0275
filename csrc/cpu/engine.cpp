#include "engine.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "../clock.h"
#include "../comm/world.h"
#include "../executor.h"
#include "arena.h"
#include "measure.h"
#include "progress.h"

namespace titan::cpu {
namespace {

constexpr uint64_t NEVER = UINT64_MAX, STATE_ALIGNMENT = 64;

std::vector<comm::Collective> collectives_of(const Backend& backend, const Program& program) {
  std::vector<comm::Collective> list;
  for (const Instruction& instruction : program.instructions)
    if (!instruction.kernel->run) list.push_back(comm::read_collective(static_cast<int>(instruction.index) - backend.num_kernels, instruction.call));
  return list;
}

comm::Loading load_together(comm::World* world, const Program& program, const std::vector<comm::Collective>& collectives) {
  comm::Loading loading;
  if (world) world->executor().run([&] { loading = world->load(program.arena_bytes, collectives); });
  return loading;
}

/// Memory for what kernels prepare.
class States {
 public:
  States() = default;
  States(const States&) = delete;
  ~States() { ::operator delete(memory_, std::align_val_t(STATE_ALIGNMENT)); }
  /// Has each kernel prepare its calls, whose operands have their addresses.
  void prepare(Program& program) {
    std::vector<uint64_t> offsets;
    for (const Instruction& instruction : program.instructions) {
      offsets.push_back(bytes_);
      if (instruction.kernel->prepare) bytes_ += (instruction.kernel->state_bytes(instruction.call) + STATE_ALIGNMENT - 1) / STATE_ALIGNMENT * STATE_ALIGNMENT;
    }
    memory_ = static_cast<char*>(::operator new(bytes_, std::align_val_t(STATE_ALIGNMENT)));
    std::memset(memory_, 0, bytes_);
    for (size_t n = 0; n < offsets.size(); n++) {
      Instruction& instruction = program.instructions[n];
      if (!instruction.kernel->prepare) continue;
      instruction.kernel->prepare(instruction.call, memory_ + offsets[n]);
      instruction.call.state = memory_ + offsets[n];
    }
  }
  uint64_t bytes() const { return bytes_; }

 private:
  char* memory_ = nullptr;
  uint64_t bytes_ = 0;
};

/// Stream 0 runs kernels on the executor's thread, stream 1 collectives on that of the world.
class CpuProgram : public DeviceProgram {
 public:
  CpuProgram(const CpuEngine& engine, Program& program, comm::World* world);
  ~CpuProgram() override;
  void run(const Run& run) override;
  void read(uint64_t offset, uint8_t* bytes, uint64_t num_bytes) override { std::copy_n(arena_.data() + offset, num_bytes, bytes); }
  void write(uint64_t offset, const uint8_t* bytes, uint64_t num_bytes) override { std::copy_n(bytes, num_bytes, arena_.data() + offset); }
  uint8_t* memory() override { return reinterpret_cast<uint8_t*>(arena_.data()); }
  void describe(titan_memory& memory) const override {
    memory.table_bytes += states_.bytes();
    memory.huge_bytes = huge_bytes_;
  }

 private:
  /// How many instructions of each stream come before an action of a run.
  struct Before {
    uint64_t on[NUM_STREAMS];
  };
  /// Whatever is thrown in there leaves it as a Failure that says where; the other stream and the other ranks know of it then.
  void run_stream(uint32_t stream, const Run& run);
  /// The stream's instructions of an action; false where it cannot go on, as the other has stopped.
  bool run_section(uint32_t stream, const Run& run, uint64_t i, const Before& before, titan_profile_record* records);
  bool may_begin(uint32_t stream, const Instruction& instruction, const titan_action& action, const Before& before);
  void run_collective(const Instruction& instruction, uint64_t slot);

  const CpuEngine& engine_;
  Program& program_;
  comm::World* const world_;
  std::vector<comm::Collective> collectives_;  // in the order of their instructions
  comm::Loading loading_;
  Arena arena_;
  uint64_t huge_bytes_ = 0;
  States states_;
  Progress progress_;
  // By stream, which looks at its own alone, and section: before the last action that ran it, and by slot before the last of those that were given it.
  std::vector<Before> last_[NUM_STREAMS], last_in_slot_[NUM_STREAMS];
  bool together_ = false;                  // has the run collectives?
  bool has_run_ = false;
};

CpuProgram::CpuProgram(const CpuEngine& engine, Program& program, comm::World* world)
    : engine_(engine), program_(program), world_(world), collectives_(collectives_of(engine.backend, program)), loading_(load_together(world, program, collectives_)), arena_(program.arena_bytes, loading_.memory) {
  program_.bind(arena_.data());
  collectives_ = collectives_of(engine.backend, program_);  // now with their addresses
  states_.prepare(program_);
  for (auto& last : last_) last.resize(program_.sections.size());
  for (auto& last : last_in_slot_) last.resize(program_.sections.size() * program_.slots);
  engine_.team().use(program_.threads);
  arena_.touch(program_.threads);
  huge_bytes_ = arena_.huge_bytes();
}

CpuProgram::~CpuProgram() {
  if (world_ && world_->keeps_memory()) arena_.keep();
  if (loading_.memory) world_->executor().run([this] { world_->release(loading_.number); });
}

void CpuProgram::run(const Run& run) {
  engine_.team().use(program_.threads);
  progress_.begin();
  together_ = std::any_of(run.actions, run.actions + run.num_actions, [&](const titan_action& action) { return program_.sections[action.section].num_on[1] > 0; });
  if (together_) {
    // The comm thread runs the collectives of all actions beside the kernels. It uses this run until it has ended, however the kernels end.
    auto run_comm = [&] { run_stream(1, run); };
    Executor::Job job(run_comm);
    world_->executor().post(job);
    std::exception_ptr thrown[NUM_STREAMS];
    try {
      run_stream(0, run);
    } catch (...) {
      thrown[0] = std::current_exception();
    }
    thrown[1] = world_->executor().join(job);
    if (const int first = progress_.stopped_by(); first != Progress::NOBODY) std::rethrow_exception(thrown[first]);
  } else {
    run_stream(0, run);
  }
  has_run_ = true;
}

void CpuProgram::run_stream(uint32_t stream, const Run& run) {
  for (auto* all : {&last_[stream], &last_in_slot_[stream]})
    for (Before& last : *all) last.on[0] = NEVER;
  Before before{};
  titan_profile_record* records = run.records;
  for (uint64_t i = 0; i < run.num_actions; i++) {
    const uint64_t number = run.actions[i].section;
    const Section& section = program_.sections[number];
    if (section.num_on[stream] && !run_section(stream, run, i, before, records)) return;
    last_[stream][number] = before;
    for (const uint32_t slot : {run.actions[i].slot, run.actions[i].source}) last_in_slot_[stream][number * program_.slots + slot] = before;
    for (uint32_t s = 0; s < NUM_STREAMS; s++) before.on[s] += section.num_on[s];
    if (records) records += section.num_instructions;
  }
}

bool CpuProgram::may_begin(uint32_t stream, const Instruction& instruction, const titan_action& action, const Before& before) {
  for (uint64_t w = instruction.first_wait; w < instruction.first_wait + instruction.num_waits; w++) {
    const Wait& wait = program_.waits[w];
    const auto has_ended = [&](const Before& then) { return then.on[0] == NEVER || progress_.wait(wait.stream, then.on[wait.stream] + wait.position); };
    const auto in_slot = [&](uint32_t slot) -> const Before& { return last_in_slot_[stream][wait.section * program_.slots + slot]; };
    if (wait.same_action ? !has_ended(before) : !wait.in_slot ? !has_ended(last_[stream][wait.section]) : !has_ended(in_slot(action.slot)) || !has_ended(in_slot(action.source)))
      return false;
  }
  return true;
}

bool CpuProgram::run_section(uint32_t stream, const Run& run, uint64_t i, const Before& before, titan_profile_record* records) {
  const titan_action& action = run.actions[i];
  const Section& section = program_.sections[action.section];
  const auto [input, input_bytes, output, output_bytes] = run.host;
  program_.place(section, stream, input ? input + action.input_base : nullptr, output ? output + action.output_base : nullptr,
                 arena_.data() + program_.slots_begin() + action.slot * program_.slot_bytes, arena_.data() + program_.slots_begin() + action.source * program_.slot_bytes);
  struct Inside {
    Access& access;
    uint32_t stream;
    ~Inside() { access.end(stream); }
  };
  run.access.begin(stream, section.writes[stream]);
  const Inside inside{run.access, stream};
  uint64_t n = section.first_instruction;
  try {
    for (; n < section.first_instruction + section.num_instructions; n++) {
      Instruction& instruction = program_.instructions[n];
      if (instruction.stream != stream) continue;
      if (!may_begin(stream, instruction, action, before)) return false;
      instruction.call.flags = action.flags;
      const uint64_t begin = records ? now_ns() : 0;
      if (stream == 0) {
        const Computing computing;
        instruction.kernel->run(instruction.call);
      } else {
        run_collective(instruction, action.slot);
      }
      if (records) records[n - section.first_instruction] = {begin, now_ns(), n, static_cast<uint32_t>(i), stream};
      if (action.flags & FLAG_CHECK_FINITE) check_finite(program_, n, [](const Tensor& tensor) { return tensor.data; });
      if (together_) progress_.advance(stream);
    }
  } catch (...) {
    const Failure failure = program_.caught(action.section, n);
    progress_.stop(stream);
    if (world_) world_->give_up(failure.what());  // else the others would wait for this rank
    throw failure;
  }
  return true;
}

void CpuProgram::run_collective(const Instruction& instruction, uint64_t slot) {
  comm::Collective& collective = collectives_[instruction.collective];
  if (collective.first && !(instruction.call.flags & FLAG_FIRST)) return;
  if (collective.last && !(instruction.call.flags & FLAG_LAST)) return;
  collective.move(arena_.data() + program_.slots_begin(), program_.slot_bytes, slot);
  world_->run(collective, *loading_.groups[instruction.collective], instruction.scope, !has_run_);
}

}  // namespace

void CpuEngine::describe(titan_device_info& info) const {
  info.kind = TITAN_DEVICE_CPU;
  info.threads = static_cast<uint32_t>(threads);
  info.vector_bits = static_cast<uint32_t>(backend.vector_bits);
  info.level_is_forced = level_is_forced_;
  copy_text(info.threads_text, threads_text_);
  copy_text(info.level, backend.level);
  cpu::describe(info);
}

void CpuEngine::bind(const std::vector<Core>& cores) {
  team_.bind(cores);
  team_.use(threads);
}

void CpuEngine::bind_alone() {
  const Processors own = own_processors(threads);
  const auto cores = cores_of_host();
  const Share share = share_alone(own, cores, sockets_of(usable_cores(own, cores)));
  if (!share.cores.empty()) team_.bind(share.cores);
  if (!share.text.empty()) threads_text_ += (threads_text_.empty() ? "" : ", ") + share.text;
}

double CpuEngine::measure(titan_measure measure, int64_t n, int threads) {
  team_.use(threads);
  return cpu::measure(backend, measure, n, threads);
}

std::unique_ptr<DeviceProgram> CpuEngine::load(Program& program, comm::World* world) { return std::make_unique<CpuProgram>(*this, program, world); }

std::unique_ptr<Engine> open_engine(uint32_t ordinal, const titan_device_options& options) {
  if (ordinal) throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("the cpu has one device, and the ordinal is ", ordinal, "; expected: 0"));
  const int processes = std::max(1, static_cast<int>(options.host_size));
  const Threads threads = options.threads ? Threads{static_cast<int>(options.threads), ""} : threads_here({processes, options.placed == 1});
  auto engine = std::make_unique<CpuEngine>(choose_level(), threads);
  if (processes == 1) engine->bind_alone();
  return engine;
}

}  // namespace titan::cpu
