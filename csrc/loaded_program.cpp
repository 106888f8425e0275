#include "loaded_program.h"

#include <algorithm>
#include <utility>

#include "comm/world.h"

namespace titan {
namespace {

std::shared_ptr<comm::World> world_of(const Device& device, const Program& program) {
  const auto collective = std::find_if(program.instructions.begin(), program.instructions.end(), [](const Instruction& instruction) { return !instruction.kernel->run; });
  if (collective == program.instructions.end()) return nullptr;
  if (device.world) return device.world;
  const auto n = static_cast<uint64_t>(collective - program.instructions.begin());
  throw program.failure(TITAN_STATUS_INVALID_PROGRAM, n, text("instruction ", n, " is a collective (", collective->kernel->name, "), but the device works alone; expected: one that has joined other ranks; fix: titan_comm_open, with processes that mpirun started"));
}

}  // namespace

std::shared_ptr<LoadedProgram> LoadedProgram::load(const std::shared_ptr<Device>& device, const uint8_t* bytes, uint64_t num_bytes) {
  try {
    return std::make_shared<LoadedProgram>(device, bytes, num_bytes);
  } catch (...) {
    const Failure failure = Failure::caught();
    if (device->world) {
      device->world->give_up(failure.what());  // else the others would wait for this rank
      device->world->tell();
    }
    throw failure;
  }
}

LoadedProgram::LoadedProgram(std::shared_ptr<Device> device, const uint8_t* bytes, uint64_t num_bytes)
    : device_(std::move(device)), program_(load_program(device_->engine->backend, device_->engine->threads, bytes, num_bytes)), world_(world_of(*device_, program_)) {
  device_->executor.run([this] { loaded_ = device_->engine->load(program_, world_.get()); });
}

void LoadedProgram::run(const titan_action* actions, uint64_t num_actions, const Host& host) {
  const auto input = reinterpret_cast<uintptr_t>(host.input), output = reinterpret_cast<uintptr_t>(host.output);
  if (input < output + host.output_bytes && output < input + host.input_bytes) throw Failure(TITAN_STATUS_INVALID_ARGUMENT, "the input and the output buffer overlap; expected: memory of its own for each");
  for (uint64_t i = 0; i < num_actions; i++) check_action(actions[i], i, host);
  try {
    device_->executor.run([&] {
      titan_profile_record* records = std::exchange(records_, nullptr);
      if (records) check_capacity(actions, num_actions, record_capacity_);
      loaded_->run({actions, num_actions, host, records, access_});
    });
  } catch (...) {
    if (world_) world_->tell();
    throw;
  }
}

void LoadedProgram::profile(titan_profile_record* records, uint64_t capacity) {
  device_->executor.run([&] { records_ = records, record_capacity_ = capacity; });
}

void LoadedProgram::check_capacity(const titan_action* actions, uint64_t num_actions, uint64_t capacity) const {
  uint64_t needed = 0;
  for (uint64_t i = 0; i < num_actions; i++) needed += program_.sections[actions[i].section].num_instructions;
  if (needed > capacity) throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("the run has ", needed, " instructions; expected: at most ", capacity, ", the records that there is room for"));
}

void LoadedProgram::check_action(const titan_action& action, uint64_t i, const Host& host) const {
  const auto refuse = [&](const std::string& why) {
    Failure failure(TITAN_STATUS_INVALID_ARGUMENT, text("action ", i, " ", why));
    throw failure.at(static_cast<int32_t>(action.section), -1, "", "");
  };
  if (action.section >= program_.sections.size()) refuse(text("runs section ", action.section, "; expected: below ", program_.sections.size()));
  if (action.slot >= program_.slots) refuse(text("has slot ", action.slot, "; expected: below ", program_.slots));
  if (action.source >= program_.slots) refuse(text("has source slot ", action.source, "; expected: below ", program_.slots));
  if (action.flags & ~uint32_t{TITAN_FLAG_FIRST | TITAN_FLAG_CHECK_FINITE | TITAN_FLAG_LAST}) refuse(text("has flags ", action.flags, "; expected: a sum of 1 (first), 2 (check finite) and 4 (last)"));
  const Section& section = program_.sections[action.section];
  const auto check_buffer = [&](const char* name, const uint8_t* buffer, uint64_t bytes, uint64_t base, uint64_t needed) {
    if (!needed) return;
    if (base > bytes || needed > bytes - base)
      refuse(text("(", section.name, ") needs ", needed, " bytes of ", name, " from its base ", base, " on; expected: to fit the ", bytes, " bytes that were passed"));
    if (!buffer) refuse(text("(", section.name, ") needs ", name, ", which is null"));
    if ((reinterpret_cast<uintptr_t>(buffer) | base) % 8) refuse(text("(", section.name, ") has ", name, " at an odd address or base ", base, "; expected: multiples of 8"));
  };
  check_buffer("input", host.input, host.input_bytes, action.input_base, section.input_bytes);
  check_buffer("output", host.output, host.output_bytes, action.output_base, section.output_bytes);
}

Range LoadedProgram::range(uint64_t offset, uint64_t num_bytes) const {
  if (offset > program_.arena_bytes || num_bytes > program_.arena_bytes - offset)
    throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text(num_bytes, " bytes from ", offset, " on are outside the arena; expected: to end by ", program_.arena_bytes));
  return {offset, offset + num_bytes};
}

void LoadedProgram::read(uint64_t offset, uint8_t* bytes, uint64_t num_bytes) {
  access_.read(range(offset, num_bytes), [&] { loaded_->read(offset, bytes, num_bytes); });
}

void LoadedProgram::write(uint64_t offset, const uint8_t* bytes, uint64_t num_bytes) {
  access_.write(range(offset, num_bytes), [&] { loaded_->write(offset, bytes, num_bytes); });
}

void LoadedProgram::load(Part* parts, int num_parts, uint64_t num_bytes, uint8_t* hashes) {
  for (const Part* part = parts; part != parts + num_parts; part++) {
    uint64_t end = 0;
    for (uint64_t i = 0; i < part->num_stretches; i++) {
      const auto& [from, to, n] = part->stretches[i];
      if (from < end || from > num_bytes || n > num_bytes - from)
        throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("stretch ", i, " has ", n, " bytes from ", from, " on; expected: stretches behind each other, within the ", num_bytes, " bytes of the part"));
      end = from + n;
      range(to, n);
    }
  }
  const Sink sink{loaded_->memory(), [&](uint64_t to, const uint8_t* bytes, uint64_t n) { loaded_->write(to, bytes, n); }};
  access_.write({0, program_.arena_bytes}, [&] { read_parts(parts, num_parts, num_bytes, sink, hashes); });
}

titan_memory LoadedProgram::memory() const {
  titan_memory memory{program_.arena_bytes, program_.input_bytes, program_.output_bytes, program_.table_bytes(), 0};
  loaded_->describe(memory);
  return memory;
}

}  // namespace titan
