// The loader on programs cut short, with flipped bytes and with wild numbers in every field: it answers or refuses, and never crashes.
#include "../comm/collective.h"
#include "../program.h"
#include "../titan.h"
#include "encode.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

constexpr int THREADS = 2;
constexpr uint64_t HEADER = 128, TENSOR = 128, SECTION = 32, INSTRUCTION = 48;

/// Two sections: gemm into the arena and copy to the output, rmsnorm backward without its optional operand, a map.
Bytes small_program() {
  return encode({
      .threads = THREADS,
      .arena_bytes = 384,
      .input_bytes = 256,
      .output_bytes = 64,
      .views = {{1, 0, 0, {1, 4, 8}, {32, 8, 1}}, {1, 0, 128, {1, 8, 4}, {32, 1, 8}}, {0, 0, 0, {1, 4, 4}, {16, 4, 1}}, {2, 0, 0, {1, 4, 4}, {16, 4, 1}},
                {0, 0, 64, {2, 4}, {4, 1}}, {0, 0, 128, {2}, {1}}, {0, 0, 192, {4}, {1}}, {0, 3, 256, {64}, {1}}, {0, 0, 320, {2, 4}, {4, 1}}},
      .steps = {{0, {0, 1, 2}, {2, 0}}, {3, {2, 3}, {}}, {9, {4, 5, 6, 4, ABSENT, 8, 6, 7}, {0}},
                {1, {4, 8, 8}, {2, 4, 2, 0 | 3 << 16 | int64_t{0} << 28 | int64_t{1} << 40, 3, 1, 0x3FF0000000000000}}},
      .sections = {{0, 2}, {2, 2}},
  });
}

/// "" when it loads, else the refusal.
std::string refusal(const std::vector<uint8_t>& bytes) {
  const std::vector<uint8_t> exact(bytes);  // so that the sanitizer sees a read behind its end
  try {
    load_program(cpu::choose_level().backend, THREADS, exact.data(), exact.size());
    return "";
  } catch (const Failure& failure) {
    EXPECT(failure.status() == TITAN_STATUS_INVALID_PROGRAM);
    EXPECT(*failure.what());
    return failure.what();
  }
}

void check_truncations(const Bytes& program) {
  for (size_t size = 0; size < program.data.size(); size++)
    EXPECT(!refusal({program.data.begin(), program.data.begin() + static_cast<std::ptrdiff_t>(size)}).empty());
  auto longer = program.data;
  longer.push_back(0);
  EXPECT(!refusal(longer).empty());
}

void check_flips(const Bytes& program) {
  std::mt19937 engine(1);
  for (size_t at = 0; at < program.data.size(); at++)
    for (const uint8_t flip : {0x01, 0x80, 0xFF}) {
      auto changed = program.data;
      changed[at] ^= flip;
      refusal(changed);
    }
  for (int i = 0; i < 20000; i++) {
    auto changed = program.data;
    for (unsigned n = 0; n <= engine() % 4; n++) changed[engine() % changed.size()] = static_cast<uint8_t>(engine());
    refusal(changed);
  }
}

void check_wild_numbers(const Bytes& program) {
  for (uint64_t at = 8; at + 8 <= program.data.size(); at += 4)
    for (const uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{0x7FFFFFFF}, uint64_t{0xFFFFFFFF}, uint64_t{1} << 32, uint64_t{1} << 44, uint64_t{1} << 62, ~uint64_t{0} / 2,
                                 uint64_t{1} << 63, ~uint64_t{0} - 7, ~uint64_t{0}}) {
      Bytes changed = program;
      changed.set(at, static_cast<uint32_t>(value));
      refusal(changed.data);
      if (at % 8 == 0) {
        changed.set(at, value);
        refusal(changed.data);
      }
    }
}

void check_messages(const Bytes& program) {
  const uint64_t tensors = HEADER, sections = tensors + 9 * TENSOR, instructions = sections + 2 * SECTION, operands = instructions + 4 * INSTRUCTION;
  const auto expect = [&](uint64_t at, auto value, const char* part) {
    Bytes changed = program;
    changed.set(at, value);
    const std::string message = refusal(changed.data);
    if (message.find(part) == std::string::npos) std::printf("\"%s\" is not in \"%s\"\n", part, message.c_str()), failures++;
  };
  expect(0, 'X', "do not start with TITANPRG");
  expect(8, 1u, "has format 1; expected: 3");
  expect(112, 'g', "the program is for the target \"gpu\"; expected: \"cpu\", that of the device; fix: compile it for the device");
  expect(115, 'u', "the program is for the target \"cpuu\"; expected: \"cpu\"");
  expect(116, 'u', "the header has byte 117 at 116");
  expect(96, uint64_t{0}, "has 0 slots of 0 bytes; expected: at least 1, all in the 384 bytes of the arena");
  expect(104, uint64_t{385}, "has 1 slots of 385 bytes");
  expect(104, uint64_t{8}, "the program has slots of 8 bytes from 376 on; expected: multiples of 64");
  expect(104, uint64_t{64}, "tensor 8 takes 32 bytes from 320 on; expected: to end by 320, the end of the arena without its slots");
  expect(12, 3u, "compiled for 3 threads; expected: 1 to 2");
  expect(16, uint64_t{320}, "tensor 8 takes 32 bytes from 320 on; expected: to end by 320");
  expect(40, uint64_t{1} << 60, "claims 1152921504606846976 tensors");
  expect(72, uint64_t{15}, "; expected: ");
  expect(tensors, 5u, "tensor 0 is in space 5; expected: 0 arena, 1 input, 2 output, 3 slot or 4 source slot");
  expect(tensors, 3u, "tensor 0 takes 128 bytes from 0 on; expected: to end by 0, the end of a slot");
  expect(tensors + 4, NUM_DTYPES, ("tensor 0 has dtype " + std::to_string(NUM_DTYPES) + "; expected: below " + std::to_string(NUM_DTYPES)).c_str());
  expect(tensors + 4, static_cast<uint32_t>(DType::f16), "instruction 0: a is f16, which gemm does not take there; expected: f32 or f64");
  expect(tensors + 2 * TENSOR + 4, static_cast<uint32_t>(DType::i64), "instruction 0: c is i64, which gemm does not take there; expected: f32 or f64");
  expect(tensors + 4 * TENSOR + 4, 1u, "instruction 2: rstd mixes f64 with f32, bf16 or float8; expected: one real dtype in a call, bf16 and float8 only beside f32");
  expect(tensors + 5 * TENSOR + 4, 4u, "instruction 2: rstd is bf16, which rmsnorm_backward does not take there; expected: f32 or f64");
  expect(tensors + 8, uint64_t{2}, "tensor 0 is at offset 2; expected: a multiple of 4");
  expect(tensors + 16, 7u, "tensor 0 has 7 dims");
  expect(tensors + 24, int64_t{-1}, "tensor 0 has dim -1 with stride 32");
  expect(tensors + 24 + 8, int64_t{1} << 60, "tensor 0 is too large");
  expect(tensors + 72 + 8, int64_t{1} << 62, "tensor 0 is too large");
  expect(tensors + 7 * TENSOR + 8, uint64_t{260}, "tensor 7 is at offset 260; expected: a multiple of 64");
  expect(tensors + 7 * TENSOR + 72, int64_t{3}, "expected: to end by 384");
  expect(tensors + 7 * TENSOR + 72, int64_t{2}, "tensor 7 is of bytes; expected: one dim of stride 1");
  expect(tensors + 7 * TENSOR + 24, int64_t{16}, "instruction 2: ");
  expect(sections + 16, uint64_t{5}, "section 0 (run) has 5 instructions from 0 on");
  expect(sections + 16, uint64_t{3}, "section 1 (run) starts at instruction 2; expected: behind the section before, from 3 on");
  expect(sections, 7u, "'s name is 3 bytes from 7 on");
  const uint32_t kernels = cpu::choose_level().backend.num_kernels, all = kernels + comm::NUM_COLLECTIVES;
  expect(instructions, all, ("instruction 0 has kernel " + std::to_string(all) + "; expected: below " + std::to_string(all)).c_str());
  expect(instructions, kernels, "instruction 0: is on stream 0; expected: 1");
  expect(instructions + 4, 1u, "instruction 0: is on stream 1; expected: 0");
  expect(instructions + INSTRUCTION + 44, 1u, "instruction 1: has 1 waits from 0 on; expected: from 0 on, inside the table of 0");
  expect(instructions + 40, 1u, "instruction 0: has 0 waits from 1 on; expected: from 0 on");
  expect(64, uint64_t{1}, "; expected: ");
  expect(instructions + 8, uint64_t{1}, "expected: from 0 on");
  expect(instructions + 16, 2u, "operands, which do not fit gemm");
  expect(instructions + 20, 0u, "attribute accumulate is missing");
  expect(instructions + 24, uint64_t{100}, "attribute words from 100 on");
  expect(operands, 9u, "instruction 0: a is tensor 9; expected: below 9");
  expect(operands, 0xFFFFFFFFu, "instruction 0: a is absent");
  expect(operands, 7u, "instruction 0: a has the wrong dtype");
  expect(operands + 8, 0u, "instruction 0: c is written in the input buffer");
}

void check_loads(const Bytes& bytes) {
  EXPECT(refusal(bytes.data).empty());
  Program program = load_program(cpu::choose_level().backend, THREADS, bytes.data.data(), bytes.data.size());
  EXPECT(program.sections.size() == 2 && program.instructions.size() == 4);
  EXPECT(program.sections[0].input_bytes == 256 && program.sections[0].output_bytes == 64 && program.sections[0].moving[0].size() == 3);
  EXPECT(program.instructions[2].call[4].data == nullptr && program.instructions[2].first_output == 5 && program.instructions[2].num_outputs == 2);
  EXPECT(program.operand_name(3, 1) == "x[1]" && program.operand_name(2, 7) == "scratch");
  EXPECT(program.instructions[0].scope == "norm!");
}

void check_handles() {
  titan_error error;
  uint64_t device = 0, program = 0;
  const Bytes bytes = small_program();
  const titan_device_options options = {THREADS, 1, 0}, refused[] = {{4097, 1, 0}, {1, 65537, 0}, {1, 1, 2}};
  EXPECT(titan_device_open(0, 0, &options, &device, &error) == TITAN_STATUS_OK);
  EXPECT(titan_device_open(7, 0, &options, &device, &error) == TITAN_STATUS_INVALID_ARGUMENT && error.instruction == -1);
  EXPECT(titan_device_open(0, 0, &options, nullptr, nullptr) == TITAN_STATUS_INVALID_ARGUMENT);
  EXPECT(titan_device_open(0, 0, nullptr, &device, nullptr) == TITAN_STATUS_INVALID_ARGUMENT);
  for (const titan_device_options& wrong : refused) EXPECT(titan_device_open(0, 0, &wrong, &device, nullptr) == TITAN_STATUS_INVALID_ARGUMENT);
  EXPECT(titan_program_create(device, nullptr, 5, &program, &error) == TITAN_STATUS_INVALID_ARGUMENT);
  EXPECT(titan_program_create(device, bytes.data.data(), bytes.data.size(), &program, &error) == TITAN_STATUS_OK);
  alignas(8) uint8_t input[256] = {}, output[64];
  titan_action action = {0, 0, TITAN_FLAG_CHECK_FINITE, 0, 0, 0};
  EXPECT(titan_program_run(program, &action, 1, input, 256, output, 64, &error) == TITAN_STATUS_OK);
  EXPECT(titan_program_run(program, &action, 1, input + 1, 256, output, 64, &error) == TITAN_STATUS_INVALID_ARGUMENT);
  EXPECT(titan_program_run(program, &action, 1, nullptr, 256, output, 64, &error) == TITAN_STATUS_INVALID_ARGUMENT);
  EXPECT(titan_program_run(program, nullptr, 1, input, 256, output, 64, &error) == TITAN_STATUS_INVALID_ARGUMENT);
  EXPECT(titan_program_run(device, &action, 1, input, 256, output, 64, &error) == TITAN_STATUS_INVALID_HANDLE);
  EXPECT(titan_device_close(program, &error) == TITAN_STATUS_INVALID_HANDLE);
  EXPECT(titan_device_close(device, &error) == TITAN_STATUS_OK);
  EXPECT(titan_device_close(device, &error) == TITAN_STATUS_INVALID_HANDLE);
  EXPECT(titan_program_run(program, &action, 1, input, 256, output, 64, &error) == TITAN_STATUS_OK);  // keeps its device
  EXPECT(titan_buffer_read(program, 384, input, 1, &error) == TITAN_STATUS_INVALID_ARGUMENT);
  EXPECT(titan_buffer_read(program, ~uint64_t{0}, input, 2, &error) == TITAN_STATUS_INVALID_ARGUMENT);
  EXPECT(titan_program_destroy(program, &error) == TITAN_STATUS_OK);
  EXPECT(titan_program_destroy(program, &error) == TITAN_STATUS_INVALID_HANDLE);
}

}  // namespace

int main() {
  const Bytes program = small_program();
  check_loads(program);
  check_messages(program);
  check_truncations(program);
  check_flips(program);
  check_wild_numbers(program);
  check_handles();
  return finish("program");
}
