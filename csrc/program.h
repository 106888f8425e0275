// A loaded program: the tables of the binary format, checked, with a Call ready for each instruction.
// Offsets are bytes; dims and strides are elements. The format is described at the top of program.cpp.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "access.h"
#include "backend.h"
#include "failure.h"

namespace titan {

enum class Space : uint32_t { arena = 0, input = 1, output = 2, slot = 3, source = 4 };
constexpr uint32_t NUM_SPACES = 5;

/// Where a tensor lies: bytes offset to end of a space. `absent` stands for an optional operand that is not there.
struct Place {
  Space space;
  bool absent;
  uint64_t offset, end;
};

struct Instruction {
  uint32_t index;  // of the kernel in kernels.def
  const Kernel* kernel;
  Call call;  // operands and attributes point into the program's tables
  int first_output, num_outputs;
  std::string scope;
  uint32_t stream = 0;                     // 1: the comm stream, for collectives
  uint64_t first_wait = 0, num_waits = 0;  // runs only when these have ended
  uint64_t collective = 0;                 // its number among the collectives
};

/// An instruction of another stream that must have ended: in the same action, or else in the last one before that ran its section, of all or
/// (`in_slot`) of those with one of the action's slots.
struct Wait {
  uint64_t section;
  uint32_t stream;
  bool same_action, in_slot;
  uint64_t position;  // among the section's instructions on its stream, from 1 on
};

struct Section {
  std::string name;
  uint64_t first_instruction = 0, num_instructions = 0;
  uint64_t input_bytes = 0, output_bytes = 0;  // how far views of the caller's buffers reach from an action's bases
  // By stream:
  uint64_t num_on[NUM_STREAMS] = {};          // instructions
  std::vector<uint32_t> moving[NUM_STREAMS];  // operands in the caller's buffers and in slots: each action sets their addresses
  std::vector<Range> writes[NUM_STREAMS];     // what they write of the arena, results and scratch; for one slot, all of them
};

struct Program {
  int threads = 1;
  uint64_t arena_bytes = 0, input_bytes = 0, output_bytes = 0;
  uint64_t slots = 1, slot_bytes = 0;  // microbatches of which something is kept at a time, and how much of each
  std::vector<Section> sections;
  std::vector<Instruction> instructions;
  std::vector<Wait> waits;       // of all instructions, in their order
  std::vector<Tensor> operands;  // of all instructions, in their order
  std::vector<Place> places;     // of the operands
  std::vector<Attribute> attributes;

  Program() = default;
  Program(Program&&) = default;  // the tables' elements stay where they are, so the calls stay valid
  Program& operator=(Program&&) = default;

  /// From where on the slots lie in the arena, one after another up to its end.
  uint64_t slots_begin() const { return arena_bytes - slots * slot_bytes; }
  /// Points the operands in the arena at their memory, those in slots at that of slot 0.
  void bind(char* arena);
  /// Points those of a section that move, on a stream, at their memory in an action.
  void place(const Section& section, uint32_t stream, const uint8_t* input, uint8_t* output, char* slot, char* source);
  /// Memory of the tables themselves.
  uint64_t table_bytes() const;
  /// "c", or "y[1]" of a repeated operand.
  std::string operand_name(uint64_t instruction, int operand) const;
  /// A failure that carries the facts of an instruction.
  Failure failure(titan_status status, uint64_t instruction, std::string_view message) const;
  /// The exception that a catch block has caught, as the failure of an instruction that ran in a section.
  Failure caught(uint64_t section, uint64_t instruction) const noexcept;
};

/// Reads a binary program. Anything malformed is a Failure that names the entry and says what was expected.
Program load_program(const Backend& backend, int device_threads, const uint8_t* bytes, uint64_t num_bytes);

}  // namespace titan
