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

enum class Space : uint32_t { arena = 0, input = 1, output = 2 };

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

/// An instruction of another stream that must have ended: in the same action, or else in the last one before that ran its section.
struct Wait {
  uint64_t section;
  uint32_t stream;
  bool same_action;
  uint64_t position;  // among the section's instructions on its stream, from 1 on
};

struct Section {
  std::string name;
  uint64_t first_instruction, num_instructions;
  std::vector<uint32_t> host_operands;  // those in the caller's buffers: each action sets their addresses
  uint64_t input_bytes, output_bytes;   // how far their views reach from the action's bases
  uint64_t num_on[NUM_STREAMS] = {};       // instructions by stream
  std::vector<Range> writes[NUM_STREAMS];  // by stream: what its instructions write of the arena, results and scratch
};

struct Program {
  int threads = 1;
  uint64_t arena_bytes = 0, input_bytes = 0, output_bytes = 0;
  uint64_t slots = 1, slot_bytes = 0;  // microbatches of which something is kept at a time, and how far apart that lies
  std::vector<Section> sections;
  std::vector<Instruction> instructions;
  std::vector<Wait> waits;       // of all instructions, in their order
  std::vector<Tensor> operands;  // of all instructions, in their order
  std::vector<Place> places;     // of the operands
  std::vector<Attribute> attributes;

  Program() = default;
  Program(Program&&) = default;  // the tables' elements stay where they are, so the calls stay valid
  Program& operator=(Program&&) = default;

  /// Points the operands in the arena at their memory.
  void bind(char* arena);
  /// Memory of the tables themselves.
  uint64_t table_bytes() const;
  /// "c", or "y[1]" of a repeated operand.
  std::string operand_name(uint64_t instruction, int operand) const;
  /// A failure that carries the facts of an instruction.
  Failure failure(titan_status status, uint64_t instruction, std::string_view message) const;
};

/// Reads a binary program. Anything malformed is a Failure that names the entry and says what was expected.
Program load_program(const Backend& backend, int device_threads, const uint8_t* bytes, uint64_t num_bytes);

}  // namespace titan
