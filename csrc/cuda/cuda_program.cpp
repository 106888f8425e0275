#include "cuda_program.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "../clock.h"

namespace titan::cuda {
namespace {

constexpr uint64_t STATE_ALIGNMENT = 64;
constexpr uintptr_t OUTPUT_ALIGNMENT = 8;  // of an action's results, in the caller's buffer

/// Where launches block, so that each tells what has gone wrong in it, there is no graph to hide which it was.
bool graphs_are_allowed() {
  const char *wanted = std::getenv("TITAN_CUDA_GRAPHS"), *blocking = std::getenv("CUDA_LAUNCH_BLOCKING");
  if (!wanted || !*wanted) return !blocking || !std::strcmp(blocking, "") || !std::strcmp(blocking, "0");
  if (!std::strcmp(wanted, "on")) return true;
  if (!std::strcmp(wanted, "off")) return false;
  throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("TITAN_CUDA_GRAPHS is ", wanted, "; expected: on or off"));
}

Arena make_arena(uint64_t bytes) {
  void* memory = nullptr;
  TITAN_CUDA_CHECK(cudaMalloc(&memory, bytes));
  return {memory, [](void* arena) { (void)cudaFree(arena); }};
}

}  // namespace

CudaProgram::CudaProgram(const CudaEngine& engine, Program& program, comm::Ranks* ranks)
    : engine_(engine), program_(program), graphs_allowed_(graphs_are_allowed()), compute_(make_stream()), copies_(make_stream()), state_copies_(make_stream()), waits_(program), done_(make_event()) {
  if (ranks) {
    collectives_ = std::make_unique<CollectiveLauncher>(*ranks, program, engine.backend.num_kernels);
    comm_ = make_urgent_stream();
    fork_ = make_event(), join_ = make_event();
  }
  for (const Section& section : program_.sections) input_bytes_ = std::max(input_bytes_, section.input_bytes);
  const uint64_t needed = program_.arena_bytes + RING * input_bytes_ + program_.output_bytes, available = engine.memory({}).available;
  if (needed > available)
    throw Failure(TITAN_STATUS_OUT_OF_MEMORY, text("the program takes ", needed, " bytes of the GPU's memory, ", program_.arena_bytes, " of them for its arena; expected: at most ", available,
                                                   ", which are free; fix: a smaller batch or model, or more activation checkpointing"));
  arena_ = (ranks ? make_exchanged_arena : make_arena)(std::max<uint64_t>(program_.arena_bytes, 1));
  TITAN_CUDA_CHECK(cudaMemsetAsync(arena_.get(), 0, program_.arena_bytes, compute_.get()));
  for (Lane& lane : lanes_) lane = Lane{make_pinned_memory(input_bytes_), make_device_memory(input_bytes_), make_event(), make_event(), false};
  origin_ = make_event(cudaEventDefault);
  make_room_for_outputs(program_.output_bytes);
  program_.bind(static_cast<char*>(arena_.get()));
  prepare_states();
  prepare_plans();
  if (collectives_) collectives_->open(static_cast<char*>(arena_.get()));
  captured_.reserve(MOST_GRAPHS);
  sections_.resize(program_.sections.size());
  TITAN_CUDA_CHECK(cudaStreamSynchronize(compute_.get()));
}

CudaProgram::~CudaProgram() {
  (void)cudaSetDevice(engine_.ordinal());
  for (const Stream* stream : {&compute_, &comm_, &copies_, &state_copies_})
    if (*stream) (void)cudaStreamSynchronize(stream->get());
}

/// It stays in memory of the host, where kernels are launched: handles of libraries, plans, sizes of grids.
void CudaProgram::prepare_states() {
  std::vector<uint64_t> offsets;
  uint64_t bytes = 0;
  for (const Instruction& instruction : program_.instructions) {
    offsets.push_back(bytes);
    if (instruction.kernel->prepare) bytes += (instruction.kernel->state_bytes(instruction.call) + STATE_ALIGNMENT - 1) / STATE_ALIGNMENT * STATE_ALIGNMENT;
  }
  states_.resize(bytes + STATE_ALIGNMENT);
  uint8_t* memory = states_.data() + (STATE_ALIGNMENT - reinterpret_cast<uintptr_t>(states_.data()) % STATE_ALIGNMENT) % STATE_ALIGNMENT;
  for (size_t n = 0; n < offsets.size(); n++) {
    Instruction& instruction = program_.instructions[n];
    if (!instruction.kernel->prepare) continue;
    instruction.kernel->prepare(instruction.call, memory + offsets[n]);
    instruction.call.state = memory + offsets[n];
  }
}

/// Made for each instruction with addresses that have the least alignment of all which actions may give them.
void CudaProgram::prepare_plans() {
  char* const slots = static_cast<char*>(arena_.get()) + program_.slots_begin();
  for (const Section& section : program_.sections) program_.place(section, 0, static_cast<const uint8_t*>(lanes_[0].memory.get()), reinterpret_cast<uint8_t*>(OUTPUT_ALIGNMENT), slots, slots);
  plans_ = engine_.plan(program_);
}

/// A run's results have the same places on the GPU as in the caller's buffer. Graphs know these.
void CudaProgram::make_room_for_outputs(uint64_t bytes) {
  if (bytes <= output_bytes_) return;
  captured_.clear();
  output_bytes_ = 0;
  output_ = make_device_memory(bytes);
  pinned_output_ = make_pinned_memory(bytes);
  output_bytes_ = bytes;
}

const std::vector<Range>& CudaProgram::writes_of(const Run& run) {
  std::fill(sections_.begin(), sections_.end(), false);
  for (uint64_t i = 0; i < run.num_actions; i++) sections_[run.actions[i].section] = true;
  const auto known = std::find_if(writes_.begin(), writes_.end(), [&](const Writes& writes) { return writes.sections == sections_; });
  if (known != writes_.end()) return known->ranges;
  std::vector<Range> all;
  for (size_t i = 0; i < sections_.size(); i++)
    for (const auto& writes : program_.sections[i].writes)
      if (sections_[i]) all.insert(all.end(), writes.begin(), writes.end());
  writes_.push_back({sections_, join_ranges(std::move(all))});
  return writes_.back().ranges;
}

void CudaProgram::run(const Run& run) {
  struct Inside {
    Access& access;
    ~Inside() { access.end(0); }
  };
  run.access.begin(0, writes_of(run));
  const Inside inside{run.access};
  try {
    engine_.use();
    make_room_for_outputs(run.host.output_bytes);
    run_actions(run);
  } catch (...) {
    const Failure failure = Failure::caught();
    if (collectives_) {
      captured_.clear();  // which an abort waits for
      collectives_->abort(failure.what());  // else the others would wait for this rank, and its streams for them
    }
    for (const Stream* stream : {&copies_, &comm_, &compute_})
      if (*stream) (void)cudaStreamSynchronize(stream->get());  // the caller's buffers, and what the run writes, are in use until then
    throw failure;
  }
}

void CudaProgram::run_actions(const Run& run) {
  const auto [input, input_bytes, output, output_bytes] = run.host;
  waits_.barrier();  // the run before has ended
  comm_is_busy_ = comm_is_behind_ = false;
  if (collectives_) collectives_->begin_run();
  if (output_bytes) {
    // What no kernel writes stays as it is.
    std::copy_n(output, output_bytes, static_cast<uint8_t*>(pinned_output_.get()));
    TITAN_CUDA_CHECK(cudaMemcpyAsync(output_.get(), pinned_output_.get(), output_bytes, cudaMemcpyHostToDevice, compute_.get()));
  }
  uint64_t begun_ns = 0;
  if (run.records) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < run.num_actions; i++) count += program_.sections[run.actions[i].section].num_instructions;
    while (times_.size() < count) times_.push_back({make_event(cudaEventDefault), make_event(cudaEventDefault)});
    TITAN_CUDA_CHECK(cudaEventRecord(origin_.get(), compute_.get()));
    TITAN_CUDA_CHECK(cudaStreamSynchronize(compute_.get()));  // its clock is then the host's
    begun_ns = now_ns();
  }
  uint64_t recorded = 0;
  for (uint64_t i = 0; i < run.num_actions; i++) {
    try {
      run_action(run.actions[i], static_cast<int>(i % RING), run, run.records ? &recorded : nullptr);
    } catch (...) {
      throw Failure::caught().at(static_cast<int32_t>(run.actions[i].section), -1, "", "");
    }
  }
  if (output_bytes) TITAN_CUDA_CHECK(cudaMemcpyAsync(pinned_output_.get(), output_.get(), output_bytes, cudaMemcpyDeviceToHost, compute_.get()));
  join_collectives();
  TITAN_CUDA_CHECK(cudaEventRecord(done_.get(), compute_.get()));
  wait_for(done_);
  if (collectives_) collectives_->end_run();
  if (output_bytes) std::copy_n(static_cast<const uint8_t*>(pinned_output_.get()), output_bytes, output);
  if (run.records) fetch_records(run, begun_ns);
  for (Lane& lane : lanes_) lane.in_use = false;
}

void CudaProgram::wait_for(const Event& event) {
  if (collectives_) collectives_->wait_for(event);
  else check(cudaEventSynchronize(event.get()), "the kernels of a run", NAME_IT);
}

void CudaProgram::follow(const Stream& stream, const Stream& other, const Event& event) {
  TITAN_CUDA_CHECK(cudaEventRecord(event.get(), other.get()));
  TITAN_CUDA_CHECK(cudaStreamWaitEvent(stream.get(), event.get(), 0));
}

/// Kernels from now on come behind all collectives that were launched by themselves.
void CudaProgram::join_collectives() {
  if (std::exchange(comm_is_busy_, false)) follow(compute_, comm_, join_);
}

/// The host waits until the lane's last inputs have left its pinned memory, the GPU until kernels have read them.
void CudaProgram::bring_inputs(Lane& lane, const uint8_t* input, uint64_t bytes) {
  if (lane.in_use) {
    wait_for(lane.arrived);
    TITAN_CUDA_CHECK(cudaStreamWaitEvent(copies_.get(), lane.used.get(), 0));
  }
  std::copy_n(input, bytes, static_cast<uint8_t*>(lane.pinned.get()));
  TITAN_CUDA_CHECK(cudaMemcpyAsync(lane.memory.get(), lane.pinned.get(), bytes, cudaMemcpyHostToDevice, copies_.get()));
  TITAN_CUDA_CHECK(cudaEventRecord(lane.arrived.get(), copies_.get()));
  TITAN_CUDA_CHECK(cudaStreamWaitEvent(compute_.get(), lane.arrived.get(), 0));
  lane.in_use = true;
}

void CudaProgram::run_action(const titan_action& action, int ring, const Run& run, uint64_t* recorded) {
  const Section& section = program_.sections[action.section];
  Lane& lane = lanes_[ring];
  if (section.input_bytes) bring_inputs(lane, run.host.input + action.input_base, section.input_bytes);
  char* const slots = static_cast<char*>(arena_.get()) + program_.slots_begin();
  for (uint32_t stream = 0; stream < NUM_STREAMS; stream++)
    program_.place(section, stream, static_cast<const uint8_t*>(lane.memory.get()), static_cast<uint8_t*>(output_.get()) + action.output_base, slots + action.slot * program_.slot_bytes,
                   slots + action.source * program_.slot_bytes);
  if (recorded || !may_be_graph(action)) launch(action, recorded);
  else launch_graph(action, {action.section, action.flags, action.slot, action.source, ring, action.output_base});
  if (section.input_bytes) TITAN_CUDA_CHECK(cudaEventRecord(lane.used.get(), compute_.get()));
}

bool CudaProgram::may_be_graph(const titan_action& action) const {
  const Section& section = program_.sections[action.section];
  return graphs_allowed_ && !(action.flags & FLAG_CHECK_FINITE) && section.num_on[0] && (!section.num_on[1] || program_.slots == 1);
}

void CudaProgram::launch(const titan_action& action, uint64_t* recorded, bool captured) {
  const Section& section = program_.sections[action.section];
  uint64_t n = section.first_instruction;
  try {
    if (section.num_on[1] && !captured) {
      if (std::exchange(comm_is_behind_, false)) follow(comm_, compute_, fork_);
      comm_is_busy_ = true;
    }
    for (; n < section.first_instruction + section.num_instructions; n++) {
      Instruction& instruction = program_.instructions[n];
      const cudaStream_t stream = (instruction.stream ? comm_ : compute_).get();
      instruction.call.flags = action.flags;
      instruction.call.stream = stream;
      waits_.wait(instruction, action, stream, captured ? StreamWaits::own : StreamWaits::all);
      if (recorded) TITAN_CUDA_CHECK(cudaEventRecord(times_[*recorded].begin.get(), stream));
      if (instruction.stream) {
        collectives_->launch(instruction, action, stream);
      } else {
        if (const Plan* plan = plans_[n].get()) plan->run(instruction.call);
        else instruction.kernel->run(instruction.call);
        check(cudaGetLastError(), instruction.kernel->name);
      }
      if (recorded) TITAN_CUDA_CHECK(cudaEventRecord(times_[(*recorded)++].end.get(), stream));
      if (!captured && instruction.stream) collectives_->note(action, n, 1, stream);
      waits_.record(n, action, stream);
      if (!(action.flags & FLAG_CHECK_FINITE)) continue;
      if (collectives_) {
        TITAN_CUDA_CHECK(cudaEventRecord(done_.get(), stream));
        wait_for(done_);
      }
      check_finite(program_, n, [&](const Tensor& tensor) { return fetch(tensor, stream); });
    }
  } catch (...) {
    throw program_.caught(action.section, n);
  }
}

void CudaProgram::launch_graph(const titan_action& action, const Key& key) {
  const auto known = std::find_if(captured_.begin(), captured_.end(), [&](const Captured& captured) { return captured.key == key; });
  if (known == captured_.end()) {
    launch(action);
    if (captured_.size() < MOST_GRAPHS) captured_.push_back({key, {}});
    return;
  }
  const Section& section = program_.sections[action.section];
  const uint64_t first = section.first_instruction, count = section.num_instructions;
  if (section.num_on[1]) {
    join_collectives();  // also that these have one order on all ranks
    waits_.barrier();
  } else {
    for (uint64_t n = first; n < first + count; n++) waits_.wait(program_.instructions[n], action, compute_.get(), StreamWaits::earlier);
  }
  if (!known->graph) capture(action, known->graph);
  TITAN_CUDA_CHECK(cudaGraphLaunch(known->graph.get(), compute_.get()));
  if (section.num_on[1]) {
    collectives_->note(action, first, count, compute_.get());
    waits_.barrier();
    comm_is_behind_ = true;
  } else {
    for (uint64_t n = first; n < first + count; n++) waits_.record(n, action, compute_.get());
  }
}

void CudaProgram::capture(const titan_action& action, GraphExec& exec) {
  const bool forks = program_.sections[action.section].num_on[1];
  Graph graph;
  TITAN_CUDA_CHECK(cudaStreamBeginCapture(compute_.get(), cudaStreamCaptureModeThreadLocal));
  try {
    if (forks) follow(comm_, compute_, fork_);
    launch(action, nullptr, true);
    if (forks) follow(compute_, comm_, join_);
  } catch (...) {
    (void)cudaStreamEndCapture(compute_.get(), graph.slot());
    throw;
  }
  TITAN_CUDA_CHECK(cudaStreamEndCapture(compute_.get(), graph.slot()));
  TITAN_CUDA_CHECK(cudaGraphInstantiate(exec.slot(), graph.get(), cudaGraphInstantiateFlagUseNodePriority));  // those of the streams
}

void CudaProgram::fetch_records(const Run& run, uint64_t begun_ns) {
  const auto when = [&](const Event& event) {
    float milliseconds = 0;
    TITAN_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, origin_.get(), event.get()));
    return begun_ns + static_cast<uint64_t>(1e6 * static_cast<double>(milliseconds));
  };
  uint64_t k = 0;
  for (uint64_t i = 0; i < run.num_actions; i++) {
    const Section& section = program_.sections[run.actions[i].section];
    for (uint64_t n = section.first_instruction; n < section.first_instruction + section.num_instructions; n++, k++)
      run.records[k] = {when(times_[k].begin), when(times_[k].end), n, static_cast<uint32_t>(i), program_.instructions[n].stream};
  }
}

/// What a tensor's elements lie in, in memory of the host.
void* CudaProgram::fetch(const Tensor& tensor, cudaStream_t stream) {
  if (!tensor.data || tensor.dtype == DType::i32) return tensor.data;  // integers are finite
  uint64_t reach = 1;
  for (int d = 0; d < tensor.rank; d++) {
    if (!tensor.dims[d]) return fetched_.data();
    reach += static_cast<uint64_t>((tensor.dims[d] - 1) * tensor.strides[d]);
  }
  const uint64_t bytes = reach * size_of(tensor.dtype);
  if (fetched_.size() < bytes) fetched_.resize(bytes);
  TITAN_CUDA_CHECK(cudaMemcpyAsync(fetched_.data(), tensor.data, bytes, cudaMemcpyDeviceToHost, stream));
  TITAN_CUDA_CHECK(cudaStreamSynchronize(stream));
  return fetched_.data();
}

/// The caller's memory is not pinned. A copy of it may return before it is done (CUDA, "API synchronization behavior"), as where GPUs read such memory themselves.
void CudaProgram::read(uint64_t offset, uint8_t* bytes, uint64_t num_bytes) {
  engine_.use();
  TITAN_CUDA_CHECK(cudaMemcpyAsync(bytes, static_cast<char*>(arena_.get()) + offset, num_bytes, cudaMemcpyDeviceToHost, state_copies_.get()));
  TITAN_CUDA_CHECK(cudaStreamSynchronize(state_copies_.get()));
}

/// Kernels that come later are on another stream: it waits until the bytes are there, not only until they are read.
void CudaProgram::write(uint64_t offset, const uint8_t* bytes, uint64_t num_bytes) {
  engine_.use();
  TITAN_CUDA_CHECK(cudaMemcpyAsync(static_cast<char*>(arena_.get()) + offset, bytes, num_bytes, cudaMemcpyHostToDevice, state_copies_.get()));
  TITAN_CUDA_CHECK(cudaStreamSynchronize(state_copies_.get()));
}

}  // namespace titan::cuda
