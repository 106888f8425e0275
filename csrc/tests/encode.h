// Programs encoded by hand, in the format described at the top of program.cpp.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace titan::test {

struct Bytes {
  std::vector<uint8_t> data;
  template <class T> void put(T value) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
    data.insert(data.end(), bytes, bytes + sizeof value);
  }
  template <class T> void set(uint64_t at, T value) { std::memcpy(data.data() + at, &value, sizeof value); }
  void u32(std::initializer_list<uint32_t> values) { for (auto value : values) put(value); }
  void u64(std::initializer_list<uint64_t> values) { for (auto value : values) put(value); }
};

constexpr uint32_t ABSENT = 0xFFFFFFFF;

struct TestProgram {
  struct View { uint32_t space, dtype; uint64_t offset; std::vector<int64_t> dims, strides; };
  struct Step { uint32_t kernel; std::vector<uint32_t> operands; std::vector<int64_t> attributes; uint32_t stream = 0; std::vector<uint64_t> waits = {}; };  // a wait in a slot alone has 2^32 on top
  struct Steps { uint64_t first, count; };
  uint32_t threads;
  uint64_t arena_bytes, input_bytes, output_bytes;
  std::vector<View> views;
  std::vector<Step> steps;
  std::vector<Steps> sections;
  uint64_t slots = 1, slot_bytes = 0;
  std::string target = "cpu";
};

/// The program as bytes. All sections are named "run", and all steps have the scope "norm!".
inline Bytes encode(const TestProgram& program) {
  Bytes tensors, sections, instructions, waits, operands, attributes, file;
  for (const auto& view : program.views) {
    tensors.u32({view.space, view.dtype});
    tensors.put(view.offset);
    tensors.u32({static_cast<uint32_t>(view.dims.size()), 0});
    for (const auto* list : {&view.dims, &view.strides})
      for (size_t d = 0; d < 6; d++) tensors.put(d < list->size() ? (*list)[d] : int64_t{0});
    tensors.put(uint64_t{0});
  }
  for (const auto& step : program.steps) {
    instructions.u32({step.kernel, step.stream});
    instructions.put(uint64_t{operands.data.size() / 4});
    instructions.u32({static_cast<uint32_t>(step.operands.size()), static_cast<uint32_t>(step.attributes.size())});
    instructions.put(uint64_t{attributes.data.size() / 8});
    instructions.u32({3, 5, static_cast<uint32_t>(waits.data.size() / 8), static_cast<uint32_t>(step.waits.size())});
    for (auto wait : step.waits) waits.put(wait);
    for (auto operand : step.operands) operands.put(operand);
    for (auto attribute : step.attributes) attributes.put(attribute);
  }
  for (const auto& [first, count] : program.sections) {
    sections.u32({0, 3});
    sections.u64({first, count, 0});
  }
  for (char c : std::string("TITANPRG")) file.put(c);
  file.u32({3, program.threads});
  file.u64({program.arena_bytes, program.input_bytes, program.output_bytes, program.views.size(), program.sections.size(), program.steps.size(),
            waits.data.size() / 8, operands.data.size() / 4, attributes.data.size() / 8, 8, program.slots, program.slot_bytes});
  std::string target = program.target;
  target.resize(16);
  for (char c : target) file.put(c);
  for (const Bytes* table : {&tensors, &sections, &instructions, &waits, &operands, &attributes}) {
    file.data.insert(file.data.end(), table->data.begin(), table->data.end());
    while (file.data.size() % 8) file.data.push_back(0);
  }
  for (char c : std::string("runnorm!")) file.put(c);
  return file;
}

}  // namespace titan::test
