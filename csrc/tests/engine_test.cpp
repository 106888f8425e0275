// What an engine does for kernels: what they prepare when a program is loaded is there in each run, and what microbatches keep in slots does not mix.
// Programs have one OpenMP thread, for the thread sanitizer.
#include <algorithm>

#include "../cpu/engine.h"
#include "../loaded_program.h"
#include "encode.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

constexpr uint32_t COPY = 3, MAP = 1, N = 16, BYTES = 4 * N;

/// A kernel that prepares a number, and runs by it.
struct State {
  int64_t rows, made;
};
int prepared = 0;
std::vector<State> ran;

/// The kernels of this machine, but for `copy`, if it is to prepare something.
const Backend& backend(bool prepares) {
  static std::vector<Kernel> kernels;
  static Backend own = cpu::choose_level().backend;
  if (!prepares) return cpu::choose_level().backend;
  if (kernels.empty()) {
    kernels.assign(own.kernels, own.kernels + own.num_kernels);
    kernels[COPY].state_bytes = [](const Call&) -> uint64_t { return sizeof(State); };
    kernels[COPY].prepare = [](const Call& call, void* memory) {
      auto& state = *static_cast<State*>(memory);
      EXPECT(reinterpret_cast<uintptr_t>(memory) % 64 == 0 && state.rows == 0 && state.made == 0);
      EXPECT(!call.state && call[0].as<float>()[0] == 0);  // an operand of the arena has its address
      state = {call[0].dims[0], ++prepared};
    };
    kernels[COPY].run = [](const Call& call) { ran.push_back(*static_cast<const State*>(call.state)); };
    own.kernels = kernels.data();
  }
  return own;
}

struct Loaded {
  std::shared_ptr<LoadedProgram> program;
  explicit Loaded(const TestProgram& source, bool prepares = false) {
    const Bytes bytes = encode(source);
    const auto device = std::make_shared<Device>(std::make_unique<cpu::CpuEngine>(cpu::Choice{backend(prepares), false}, Threads{1, ""}));
    program = LoadedProgram::load(device, bytes.data.data(), bytes.data.size());
  }
};

void a_kernel_prepares_each_instruction_once_and_finds_it_in_each_run() {
  const Loaded loaded({.threads = 1, .arena_bytes = 256, .input_bytes = 0, .output_bytes = 0,
                       .views = {{0, 0, 0, {3}, {1}}, {0, 0, 64, {3}, {1}}, {0, 0, 128, {5}, {1}}, {0, 0, 192, {5}, {1}}},
                       .steps = {{COPY, {0, 1}, {}}, {COPY, {2, 3}, {}}}, .sections = {{0, 2}}}, true);
  EXPECT(prepared == 2);
  const titan_action actions[] = {{}, {}};
  for (int round = 0; round < 3; round++) loaded.program->run(actions, 2, {});
  EXPECT(prepared == 2 && ran.size() == 12);
  for (size_t i = 0; i < ran.size(); i++) EXPECT(ran[i].rows == (i % 2 ? 5 : 3) && ran[i].made == static_cast<int64_t>(i % 2 + 1));
  EXPECT(loaded.program->memory().table_bytes >= 2 * sizeof(State));
}

/// Section 0 squares what is in the input into the action's slot and adds a number that all slots share, section 1 copies the slot to the output. Between
/// them section 2 doubles the slot in its place.
TestProgram kept(uint64_t slots) {
  const auto code = [](uint32_t operation, int64_t to, int64_t a, int64_t b) { return operation | to << 16 | a << 28 | b << 40; };
  constexpr uint32_t ADD = 0, SQUARE = 16;
  return {.threads = 1, .arena_bytes = 64 + 192 * slots, .input_bytes = BYTES, .output_bytes = BYTES,
          .views = {{1, 0, 0, {N}, {1}}, {2, 0, 0, {N}, {1}}, {0, 0, 0, {N}, {0}}, {3, 0, 64, {N}, {1}}},
          .steps = {{MAP, {0, 2, 3}, {2, 4, 3, code(SQUARE, 2, 0, 0), code(ADD, 3, 2, 1), 3, 0}}, {COPY, {3, 1}, {}}, {MAP, {3, 3}, {1, 2, 2, code(ADD, 1, 0, 0), 1, 0}}},
          .sections = {{0, 1}, {1, 1}, {2, 1}}, .slots = slots, .slot_bytes = 192};
}

void what_actions_keep_in_different_slots_does_not_mix() {
  constexpr uint32_t SLOTS = 3;
  const Loaded loaded(kept(SLOTS));
  const float shared = 0.5f;
  loaded.program->write(0, reinterpret_cast<const uint8_t*>(&shared), sizeof shared);
  alignas(8) float input[SLOTS * N], output[SLOTS * N] = {};
  for (uint32_t i = 0; i < SLOTS * N; i++) input[i] = static_cast<float>(i);
  std::vector<titan_action> actions;
  for (uint32_t slot = 0; slot < SLOTS; slot++) actions.push_back({0, slot, 0, 0, slot * BYTES, 0});
  actions.push_back({2, 1, 0, 0, 0, 0});
  for (uint32_t slot = SLOTS; slot-- > 0;) actions.push_back({1, slot, 0, 0, 0, slot * BYTES});
  loaded.program->run(actions.data(), actions.size(), {reinterpret_cast<const uint8_t*>(input), sizeof input, reinterpret_cast<uint8_t*>(output), sizeof output});
  for (uint32_t i = 0; i < SLOTS * N; i++) EXPECT(output[i] == (input[i] * input[i] + shared) * (i / N == 1 ? 2 : 1));
  // Each is where the format says: one after another up to the arena's end.
  float kept[N];
  loaded.program->read(64 + 192 * 2 + 64, reinterpret_cast<uint8_t*>(kept), sizeof kept);
  EXPECT(std::equal(kept, kept + N, output + 2 * N));
}

void a_section_that_writes_a_slot_keeps_copies_out_of_all() {
  const Bytes bytes = encode(kept(2));
  const Program program = load_program(cpu::choose_level().backend, 1, bytes.data.data(), bytes.data.size());
  EXPECT(program.slots_begin() == 64 && program.sections[0].moving[0].size() == 2 && program.sections[0].moving[1].empty());
  EXPECT(program.sections[0].writes[0].size() == 1 && program.sections[0].writes[0][0].begin == 64 && program.sections[0].writes[0][0].end == 64 + 2 * 192);
  EXPECT(program.sections[1].writes[0].empty());
}

/// Why a program, or a run of it, is refused.
template <class Body> std::string refusal(Body body) {
  try {
    body();
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "it was not";
}

void what_lies_in_no_slot_is_refused() {
  TestProgram beyond = kept(2), into = kept(2), none = kept(2);
  beyond.views[3].offset = 192 - BYTES + 4;
  into.views[2].offset = 64;
  none.slots = 1, none.slot_bytes = 0;
  EXPECT(refusal([&] { Loaded{beyond}; }) == "tensor 3 takes 64 bytes from 132 on; expected: to end by 192, the end of a slot");
  EXPECT(refusal([&] { Loaded{into}; }) == "tensor 2 takes 4 bytes from 64 on; expected: to end by 64, the end of the arena without its slots");
  EXPECT(refusal([&] { Loaded{none}; }) == "tensor 3 takes 64 bytes from 64 on; expected: to end by 0, the end of a slot");
  const Loaded loaded(kept(2));
  const titan_action action = {2, 2, 0, 0, 0, 0};
  EXPECT(refusal([&] { loaded.program->run(&action, 1, {}); }) == "action 0 has slot 2; expected: below 2");
}

void results_are_not_written_over_what_is_read() {
  const Loaded loaded(kept(1));
  alignas(8) uint8_t buffer[2 * BYTES] = {};
  const titan_action action = {};
  const auto run = [&](uint64_t output) { return refusal([&] { loaded.program->run(&action, 1, {buffer, BYTES, buffer + output, BYTES}); }); };
  EXPECT(run(0) == "the input and the output buffer overlap; expected: memory of its own for each" && run(BYTES - 8) == run(0));
  EXPECT(run(BYTES) == "it was not");
}

}  // namespace

/// What one microbatch hands from stage to stage: a section reads it from the source slot of its action, and writes into its own.
void a_section_reads_the_source_slot_and_writes_its_own() {
  TestProgram program = kept(3), backward = kept(3);
  program.views.push_back({4, 0, 64, {N}, {1}});
  program.steps.push_back({COPY, {4, 3}, {}});
  program.sections.push_back({3, 1});
  backward.views.push_back({4, 0, 64, {N}, {1}});
  backward.steps[1] = {COPY, {3, 4}, {}};
  const Loaded loaded(program);
  alignas(8) float input[N], output[N] = {};
  for (uint32_t i = 0; i < N; i++) input[i] = static_cast<float>(i);
  const titan_action actions[] = {{0, 2, 0, 2, 0, 0}, {3, 1, 0, 2, 0, 0}, {1, 1, 0, 1, 0, 0}};
  loaded.program->run(actions, 3, {reinterpret_cast<const uint8_t*>(input), sizeof input, reinterpret_cast<uint8_t*>(output), sizeof output});
  for (uint32_t i = 0; i < N; i++) EXPECT(output[i] == input[i] * input[i]);
  const titan_action stray = {3, 1, 0, 3, 0, 0};
  EXPECT(refusal([&] { loaded.program->run(&stray, 1, {}); }) == "action 0 has source slot 3; expected: below 3");
  EXPECT(refusal([&] { Loaded{backward}; }) == "instruction 1: y is written in a source slot; expected: the slot of the action");
}

int main() {
  a_kernel_prepares_each_instruction_once_and_finds_it_in_each_run();
  what_actions_keep_in_different_slots_does_not_mix();
  a_section_that_writes_a_slot_keeps_copies_out_of_all();
  what_lies_in_no_slot_is_refused();
  a_section_reads_the_source_slot_and_writes_its_own();
  results_are_not_written_over_what_is_read();
  return finish("engine");
}
