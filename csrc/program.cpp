// Reads binary programs, format 3, little-endian, made by graph/passes/encode.ts. The tables follow the header in this order;
// each starts at a multiple of 8 bytes, and bytes that are not listed are zero.
//
//   header       128  magic "TITANPRG"; u32 format, threads; u64 arena_bytes, input_bytes, output_bytes;
//                     u64 tensors, sections, instructions, waits, operands, attributes, string_bytes (how many of each); u64 slots, slot_bytes
//                     (the end of the arena: each is what one microbatch keeps between its actions, and an action says which is its own);
//                     the name of the device that it is for, as in a backend, in 16 bytes
//   tensors      128  u32 space (0 arena, without the slots; 1 input; 2 output; 3 the action's slot; 4 its source slot, which is only read), dtype (the line of element_types.def);
//                     u64 offset; u32 rank, 0; i64 dims[6], strides[6] (elements)
//   sections      32  u32 name_offset, name_bytes; u64 first_instruction, instructions
//   instructions  48  u32 kernel, stream (0 kernels, 1 collectives); u64 first_operand; u32 operands, attribute words; u64 first_attribute;
//                     u32 scope_offset, scope_bytes, first_wait, waits
//   waits          8  u32 instruction, of a section and on another stream, that must have ended before: one that comes before in the same section
//                     in this action, any other in the last action of the run that ran it, if one did; u32 1: in the last of those that were
//                     given one of this action's slots, as they meet in slots alone; in the order of the instructions
//   operands       4  u32 tensor, or 0xFFFFFFFF where an optional one is absent; in the order of the instructions
//   attributes     8  i64, f64, or an array: its length, then its words; in the order of kernels.def
//   strings        1  UTF-8
#include "program.h"

#include <cstring>

#include "comm/collective.h"
#include "signature.h"

namespace titan {
namespace {

constexpr char MAGIC[] = "TITANPRG";
constexpr uint32_t FORMAT = 3, ABSENT = 0xFFFFFFFF;
constexpr uint64_t HEADER_BYTES = 128, TENSOR_BYTES = 128, SECTION_BYTES = 32, INSTRUCTION_BYTES = 48, TARGET = 112, TARGET_BYTES = 16;
constexpr uint64_t SCRATCH_ALIGNMENT = 64, SLOT_ALIGNMENT = 64;
constexpr int64_t MAX_ELEMENTS = int64_t{1} << 44;  // that a view may have (repeated ones included) or reach over
constexpr uint64_t MAX_BYTES = uint64_t{1} << 46;   // of a buffer
const char* const SPACE_NAMES[NUM_SPACES] = {"the arena without its slots", "the input buffer", "the output buffer", "a slot", "a source slot"};

[[noreturn]] void refuse(std::string message) { throw Failure(TITAN_STATUS_INVALID_PROGRAM, std::move(message)); }

/// One entry of a table. Its fields are inside it by construction.
struct Entry {
  const uint8_t* bytes;
  template <class T> T get(uint64_t at) const {
    T value;
    std::memcpy(&value, bytes + at, sizeof value);
    return value;
  }
  uint32_t u32(uint64_t at) const { return get<uint32_t>(at); }
  uint64_t u64(uint64_t at) const { return get<uint64_t>(at); }
  int64_t i64(uint64_t at) const { return get<int64_t>(at); }
  void expect_zero(uint64_t from, uint64_t to, const std::string& what) const {
    for (uint64_t at = from; at < to; at++)
      if (bytes[at]) refuse(text(what, " has byte ", int{bytes[at]}, " at ", at, ", which format ", FORMAT, " does not use; expected: 0"));
  }
};

struct Table {
  const uint8_t* bytes = nullptr;
  uint64_t size = 0, entry_bytes = 0;
  Entry operator[](uint64_t i) const { return {bytes + i * entry_bytes}; }
  /// Do `count` entries from `first` on lie inside?
  bool holds(uint64_t first, uint64_t count) const { return first <= size && count <= size - first; }
};

struct View {
  Tensor tensor;
  Place place;
};

class Loader {
 public:
  Loader(const Backend& backend, int device_threads, const uint8_t* bytes, uint64_t num_bytes)
      : backend_(backend), device_threads_(device_threads), bytes_(bytes), num_bytes_(num_bytes) {}

  Program load() {
    read_header();
    for (uint64_t i = 0; i < tensors_.size; i++) views_.push_back(read_tensor(i));
    program_.attributes.resize(attributes_.size);
    for (uint64_t i = 0; i < attributes_.size; i++) program_.attributes[i].i = attributes_[i].i64(0);
    runs_at_.resize(instructions_.size);
    program_.operands.reserve(operands_.size);  // never grows beyond, so that calls may point into it
    for (uint64_t i = 0; i < instructions_.size; i++) read_instruction(i);
    if (program_.operands.size() != operands_.size)
      refuse(text("the instructions have ", program_.operands.size(), " operands in all; expected: ", operands_.size, " by the header"));
    if (num_waits_ != waits_.size) refuse(text("the instructions have ", num_waits_, " waits in all; expected: ", waits_.size, " by the header"));
    for (uint64_t i = 0; i < sections_.size; i++) read_section(i);
    for (uint64_t i = 0; i < instructions_.size; i++) read_waits(i);
    return std::move(program_);
  }

 private:
  void read_header() {
    if (num_bytes_ < HEADER_BYTES) refuse(text("the program has ", num_bytes_, " bytes; expected: at least a header of ", HEADER_BYTES));
    const Entry header{bytes_};
    if (std::memcmp(bytes_, MAGIC, 8) != 0) refuse(text("the bytes do not start with ", MAGIC, "; expected: an encoded program"));
    if (header.u32(8) != FORMAT)
      refuse(text("the program has format ", header.u32(8), "; expected: ", FORMAT, "; fix: compile it with the version of this library"));
    const uint32_t threads = header.u32(12);
    if (threads < 1 || threads > static_cast<uint32_t>(device_threads_))
      refuse(text("the program was compiled for ", threads, " threads; expected: 1 to ", device_threads_,
                  ", the threads of the device; fix: compile it for those, or open the device with more"));
    program_.threads = static_cast<int>(threads);
    for (int space = 0; space < 3; space++) {
      space_bytes_[space] = header.u64(16 + 8 * space);
      if (space_bytes_[space] > MAX_BYTES) refuse(text(SPACE_NAMES[space], " has ", space_bytes_[space], " bytes; expected: at most ", MAX_BYTES));
    }
    program_.arena_bytes = space_bytes_[0];
    program_.input_bytes = space_bytes_[1];
    program_.output_bytes = space_bytes_[2];
    const char* target = reinterpret_cast<const char*>(bytes_ + TARGET);
    const std::string name(target, strnlen(target, TARGET_BYTES));
    if (name != backend_.name)
      refuse(text("the program is for the target \"", name, "\"; expected: \"", backend_.name, "\", that of the device; fix: compile it for the device, or load it on one that it is for"));
    header.expect_zero(TARGET + name.size(), HEADER_BYTES, "the header");
    program_.slots = header.u64(96);
    program_.slot_bytes = header.u64(104);
    if (program_.slots < 1 || program_.slots > UINT32_MAX || program_.slot_bytes > program_.arena_bytes / program_.slots)
      refuse(text("the program has ", program_.slots, " slots of ", program_.slot_bytes, " bytes; expected: at least 1, all in the ", program_.arena_bytes, " bytes of the arena"));
    if (program_.slot_bytes && (program_.slot_bytes % SLOT_ALIGNMENT || program_.slots_begin() % SLOT_ALIGNMENT))
      refuse(text("the program has slots of ", program_.slot_bytes, " bytes from ", program_.slots_begin(), " on; expected: multiples of ", SLOT_ALIGNMENT));
    space_bytes_[0] = program_.slots_begin();
    space_bytes_[3] = space_bytes_[4] = program_.slot_bytes;
    uint64_t at = HEADER_BYTES;
    tensors_ = read_table("tensors", header.u64(40), TENSOR_BYTES, &at);
    sections_ = read_table("sections", header.u64(48), SECTION_BYTES, &at);
    instructions_ = read_table("instructions", header.u64(56), INSTRUCTION_BYTES, &at);
    waits_ = read_table("waits", header.u64(64), 8, &at);
    operands_ = read_table("operands", header.u64(72), 4, &at);
    attributes_ = read_table("attributes", header.u64(80), 8, &at);
    strings_ = read_table("string bytes", header.u64(88), 1, &at);
    if (at != num_bytes_) refuse(text("the program has ", num_bytes_, " bytes; expected: ", at, " by its header"));
  }

  /// The table at `*at`, which moves behind it and its padding (the last table may go without).
  Table read_table(const char* what, uint64_t size, uint64_t entry_bytes, uint64_t* at) {
    const uint64_t left = num_bytes_ - *at;
    if (size > left / entry_bytes || size > INT32_MAX)
      refuse(text("the header claims ", size, " ", what, " of ", entry_bytes, " bytes; expected: to fit the ", left, " bytes that are left"));
    const Table table{bytes_ + *at, size, entry_bytes};
    const uint64_t used = size * entry_bytes, end = std::min((used + 7) / 8 * 8, left);
    Entry{table.bytes}.expect_zero(used, end, text("the padding of the ", what));
    *at += end;
    return table;
  }

  View read_tensor(uint64_t i) {
    const Entry entry = tensors_[i];
    const std::string what = text("tensor ", i);
    const uint32_t space = entry.u32(0), dtype = entry.u32(4), rank = entry.u32(16);
    if (space >= NUM_SPACES) refuse(text(what, " is in space ", space, "; expected: 0 arena, 1 input, 2 output, 3 slot or 4 source slot"));
    if (dtype >= NUM_DTYPES) refuse(text(what, " has dtype ", dtype, "; expected: below ", NUM_DTYPES, "; fix: compile the program with the version of this library"));
    if (rank > MAX_RANK) refuse(text(what, " has ", rank, " dims; expected: at most ", MAX_RANK));
    entry.expect_zero(20, 24, what);
    entry.expect_zero(120, TENSOR_BYTES, what);
    View view{{nullptr, DType{dtype}, static_cast<int>(rank), {1, 1, 1, 1, 1, 1}, {}}, {Space{space}, false, entry.u64(8), 0}};
    int64_t elements = 1, reach = 1;  // reach: elements from the first to behind the last
    bool empty = false;
    for (uint32_t d = 0; d < rank; d++) {
      const int64_t dim = entry.i64(24 + 8 * d), stride = entry.i64(72 + 8 * d);
      if (dim < 0 || stride < 0) refuse(text(what, " has dim ", dim, " with stride ", stride, "; expected: none below 0"));
      view.tensor.dims[d] = dim;
      view.tensor.strides[d] = stride;
      empty |= dim == 0;
      int64_t step = 0;
      const bool fits = !__builtin_mul_overflow(elements, std::max<int64_t>(dim, 1), &elements) && elements <= MAX_ELEMENTS &&
                        !__builtin_mul_overflow(std::max<int64_t>(dim - 1, 0), stride, &step) && !__builtin_add_overflow(reach, step, &reach) &&
                        reach <= MAX_ELEMENTS;
      if (!fits) refuse(text(what, " is too large; expected: to reach over at most ", MAX_ELEMENTS, " elements"));
    }
    const uint64_t size = size_of(view.tensor.dtype), span = empty ? 0 : static_cast<uint64_t>(reach) * size, offset = view.place.offset;
    if (offset > space_bytes_[space] || span > space_bytes_[space] - offset)
      refuse(text(what, " takes ", span, " bytes from ", offset, " on; expected: to end by ", space_bytes_[space], ", the end of ", SPACE_NAMES[space]));
    view.place.end = offset + span;
    const bool scratch = view.tensor.dtype == DType::bytes;
    const uint64_t alignment = scratch ? SCRATCH_ALIGNMENT : size;
    if (offset % alignment) refuse(text(what, " is at offset ", offset, "; expected: a multiple of ", alignment));
    if (scratch && (space != 0 || rank != 1 || view.tensor.strides[0] != 1)) refuse(text(what, " is of bytes; expected: one dim of stride 1 in the arena"));
    return view;
  }

  std::string read_string(const std::string& what, uint32_t offset, uint32_t bytes) {
    if (!strings_.holds(offset, bytes))
      refuse(text(what, "'s name is ", bytes, " bytes from ", offset, " on; expected: inside the ", strings_.size, " bytes of strings"));
    std::string name(reinterpret_cast<const char*>(strings_.bytes) + offset, bytes);
    for (const char c : name)
      if (static_cast<unsigned char>(c) < ' ') refuse(text(what, "'s name holds a control character; expected: none"));
    return name;
  }

  void read_instruction(uint64_t i) {
    const Entry entry = instructions_[i];
    const std::string what = text("instruction ", i);
    const uint32_t kernel = entry.u32(0), num_operands = entry.u32(16), num_attributes = entry.u32(20);
    const uint64_t first_operand = entry.u64(8), first_attribute = entry.u64(24);
    const auto num_kernels = static_cast<uint32_t>(backend_.num_kernels), num_all = num_kernels + static_cast<uint32_t>(comm::NUM_COLLECTIVES);
    if (kernel >= num_all) refuse(text(what, " has kernel ", kernel, "; expected: below ", num_all, "; fix: compile the program with the version of this library"));
    const uint32_t stream = kernel < num_kernels ? 0 : 1;
    program_.instructions.push_back({kernel, stream ? &comm::COLLECTIVES[kernel - num_kernels] : &backend_.kernels[kernel], {}, 0, 0,
                                     read_string(what, entry.u32(32), entry.u32(36)), stream, entry.u32(40), entry.u32(44), num_collectives_});
    num_collectives_ += stream;
    const auto refuse_call = [&](const std::string& why) { throw program_.failure(TITAN_STATUS_INVALID_PROGRAM, i, text(what, ": ", why)); };
    if (entry.u32(4) != stream) refuse_call(text("is on stream ", entry.u32(4), "; expected: ", stream));
    if (const uint64_t first = entry.u32(40), waits = entry.u32(44); first != num_waits_ || !waits_.holds(first, waits))
      refuse_call(text("has ", waits, " waits from ", first, " on; expected: from ", num_waits_, " on, inside the table of ", waits_.size));
    num_waits_ += entry.u32(44);
    if (first_operand != program_.operands.size() || !operands_.holds(first_operand, num_operands))
      refuse_call(text("has ", num_operands, " operands from ", first_operand, " on; expected: from ", program_.operands.size(), " on, inside the table of ", operands_.size));
    if (!attributes_.holds(first_attribute, num_attributes))
      refuse_call(text("has ", num_attributes, " attribute words from ", first_attribute, " on; expected: inside the table of ", attributes_.size));

    const Signature& signature = signatures()[kernel];
    const Attribute* attributes = program_.attributes.data() + first_attribute;
    Split split{};
    const std::string misfit = split_operands(signature, num_operands, attributes, num_attributes, &split);
    if (!misfit.empty()) refuse_call(misfit);
    const Tensor* first_real = nullptr;
    for (int j = 0; j < static_cast<int>(num_operands); j++) {
      const Tensor& tensor = add_operand(signature, split, j, operands_[first_operand + j].u32(0), refuse_call);
      if (!tensor.data) continue;
      if (!operand_stored(signature, split, j, tensor.dtype))
        refuse_call(text(operand_name(signature, split, j), " is ", name_of(tensor.dtype), ", which ", signature.name, " does not take there; expected: ", signature.dtypes_text));
      // What ranks do together moves elements, or says itself what it takes.
      if (stream || (kind_of(tensor.dtype) != ElementKind::real && kind_of(tensor.dtype) != ElementKind::stored_real)) continue;
      if (!first_real) first_real = &tensor;
      if ((tensor.dtype == DType::f64) != (first_real->dtype == DType::f64))
        refuse_call(text(operand_name(signature, split, j), " mixes f64 with f32, bf16 or float8; expected: one real dtype in a call, bf16 and float8 only beside f32"));
    }
    Instruction& instruction = program_.instructions.back();
    instruction.call = {program_.operands.data() + first_operand, static_cast<int>(num_operands), attributes, static_cast<int>(num_attributes), 0, program_.threads};
    instruction.first_output = split.inputs;
    instruction.num_outputs = split.outputs;
    const std::string why = instruction.kernel->check(instruction.call);
    if (!why.empty()) refuse_call(why);
  }

  template <class RefuseCall>
  const Tensor& add_operand(const Signature& signature, Split split, int j, uint32_t index, const RefuseCall& refuse_call) {
    const auto name = [&] { return operand_name(signature, split, j); };
    const bool is_input = j < split.inputs, is_scratch = j >= split.inputs + split.outputs;
    if (index == ABSENT) {
      if (!operand_optional(signature, split, j)) refuse_call(text(name(), " is absent; expected: a tensor"));
      program_.operands.push_back({});
      program_.places.push_back({Space::arena, true, 0, 0});
      return program_.operands.back();
    }
    if (index >= views_.size()) refuse_call(text(name(), " is tensor ", index, "; expected: below ", views_.size()));
    const auto& [tensor, place] = views_[index];
    if (program_.instructions.back().stream && place.space != Space::arena && place.space != Space::slot) refuse_call(text(name(), " lies in ", SPACE_NAMES[static_cast<uint32_t>(place.space)], "; expected: the arena, which other ranks see"));
    if (is_scratch != (tensor.dtype == DType::bytes)) refuse_call(text(name(), " has the wrong dtype; expected: ", is_scratch ? "bytes" : "f32, f64, bf16, float8 or i32"));
    if (!is_input && place.space == Space::source) refuse_call(text(name(), " is written in a source slot; expected: the slot of the action"));
    if (!is_input && place.space == Space::input) refuse_call(text(name(), " is written in the input buffer; expected: the arena or the output buffer"));
    program_.operands.push_back(tensor);
    program_.places.push_back(place);
    // Different for different places, and of the true alignment; bind() and place() set the address that is used.
    program_.operands.back().data = reinterpret_cast<void*>((uint64_t{1} + static_cast<uint32_t>(place.space)) * MAX_BYTES + place.offset);
    return program_.operands.back();
  }

  void read_section(uint64_t i) {
    const Entry entry = sections_[i];
    const std::string what = text("section ", i);
    Section section;
    section.name = read_string(what, entry.u32(0), entry.u32(4));
    section.first_instruction = entry.u64(8);
    section.num_instructions = entry.u64(16);
    entry.expect_zero(24, SECTION_BYTES, what);
    if (!instructions_.holds(section.first_instruction, section.num_instructions))
      refuse(text(what, " (", section.name, ") has ", section.num_instructions, " instructions from ", section.first_instruction,
                  " on; expected: inside the table of ", instructions_.size));
    if (section.first_instruction < next_instruction_)
      refuse(text(what, " (", section.name, ") starts at instruction ", section.first_instruction, "; expected: behind the section before, from ", next_instruction_, " on"));
    next_instruction_ = section.first_instruction + section.num_instructions;
    for (uint64_t n = section.first_instruction; n < next_instruction_; n++) {
      const Instruction& instruction = program_.instructions[n];
      const Call& call = instruction.call;
      runs_at_[n] = {i, ++section.num_on[instruction.stream]};
      for (int j = 0; j < call.num_operands; j++) {
        const auto operand = static_cast<uint32_t>(call.operands + j - program_.operands.data());
        const Place& place = program_.places[operand];
        if (place.absent) continue;
        const bool slot = place.space == Space::slot || place.space == Space::source, host = !slot && place.space != Space::arena;
        if (slot || host) section.moving[instruction.stream].push_back(operand);
        if (host) {
          uint64_t& bytes = place.space == Space::input ? section.input_bytes : section.output_bytes;
          bytes = std::max(bytes, place.end);
        } else if (j >= instruction.first_output) {
          section.writes[instruction.stream].push_back(slot ? Range{program_.slots_begin(), program_.arena_bytes} : Range{place.offset, place.end});
        }
      }
    }
    for (auto& writes : section.writes) writes = join_ranges(std::move(writes));
    program_.sections.push_back(std::move(section));
  }

  void read_waits(uint64_t i) {
    const Instruction& instruction = program_.instructions[i];
    for (uint64_t w = instruction.first_wait; w < instruction.first_wait + instruction.num_waits; w++) {
      const uint32_t other = waits_[w].u32(0), in_slot = waits_[w].u32(4);
      if (in_slot > 1) throw program_.failure(TITAN_STATUS_INVALID_PROGRAM, i, text("instruction ", i, ": waits with word ", in_slot, "; expected: 0, or 1 for what meets in a slot"));
      if (other >= instructions_.size || !runs_at_[other].position || program_.instructions[other].stream == instruction.stream)
        throw program_.failure(TITAN_STATUS_INVALID_PROGRAM, i, text("instruction ", i, ": waits for instruction ", other, "; expected: one of a section, on another stream"));
      const RunsAt at = runs_at_[other];
      program_.waits.push_back({at.section, program_.instructions[other].stream, other < i && at.section == runs_at_[i].section && runs_at_[i].position, in_slot == 1, at.position});
    }
  }

  const Backend& backend_;
  const int device_threads_;
  const uint8_t* bytes_;
  const uint64_t num_bytes_;
  /// Where an instruction is: its section, and its position there on its stream, from 1 on; 0: in none.
  struct RunsAt {
    uint64_t section = 0, position = 0;
  };
  uint64_t space_bytes_[NUM_SPACES] = {}, next_instruction_ = 0, num_collectives_ = 0, num_waits_ = 0;
  Table tensors_, sections_, instructions_, waits_, operands_, attributes_, strings_;
  std::vector<RunsAt> runs_at_;
  std::vector<View> views_;
  Program program_;
};

}  // namespace

Program load_program(const Backend& backend, int device_threads, const uint8_t* bytes, uint64_t num_bytes) {
  return Loader(backend, device_threads, bytes, num_bytes).load();
}

void Program::bind(char* arena) {
  for (size_t i = 0; i < operands.size(); i++) {
    if (places[i].absent) continue;
    if (places[i].space == Space::arena) operands[i].data = arena + places[i].offset;
    if (places[i].space == Space::slot || places[i].space == Space::source) operands[i].data = arena + slots_begin() + places[i].offset;
  }
}

void Program::place(const Section& section, uint32_t stream, const uint8_t* input, uint8_t* output, char* slot, char* source) {
  void* const bases[NUM_SPACES] = {nullptr, const_cast<uint8_t*>(input), output, slot, source};
  for (const uint32_t operand : section.moving[stream]) operands[operand].data = static_cast<char*>(bases[static_cast<size_t>(places[operand].space)]) + places[operand].offset;
}

uint64_t Program::table_bytes() const {
  uint64_t bytes = operands.size() * (sizeof(Tensor) + sizeof(Place)) + attributes.size() * sizeof(Attribute);
  for (const Section& section : sections) bytes += sizeof section + (section.moving[0].size() + section.moving[1].size()) * sizeof(uint32_t) + (section.writes[0].size() + section.writes[1].size()) * sizeof(Range);
  return bytes + waits.size() * sizeof(Wait) + instructions.size() * sizeof(Instruction);
}

std::string Program::operand_name(uint64_t instruction, int operand) const {
  const Instruction& it = instructions[instruction];
  return titan::operand_name(signatures()[it.index], {it.first_output, it.num_outputs}, operand);
}

Failure Program::failure(titan_status status, uint64_t instruction, std::string_view message) const {
  return Failure(status, message).at(-1, static_cast<int64_t>(instruction), instructions[instruction].kernel->name, instructions[instruction].scope);
}

Failure Program::caught(uint64_t section, uint64_t instruction) const noexcept {
  const Instruction& it = instructions[instruction];
  return Failure::caught(it.kernel->name, it.scope.c_str()).at(static_cast<int32_t>(section), static_cast<int64_t>(instruction), it.kernel->name, it.scope);
}

}  // namespace titan
