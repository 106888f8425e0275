// Any element-wise computation: x* -> y*, a register program (csrc/cpu/ops/map.cpp tells its words) that each thread runs for its elements.
// All operands are viewed with the same dims; an output may lie where an input does, as an element's inputs are read before its outputs are written.
//
// This is the one kernel for every program: its registers are an array in local memory, which lies in L1, and each instruction is a branch. So it is
// bound by instructions, not by memory, beyond a few of them. Programs compiled for themselves (NVRTC) are to take its place.
// Bytes moved: each operand's element once.
#include "../../map_operations.h"
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

constexpr int MOST_OPERANDS = 64, MOST_REGISTERS = 128, MOST_WORDS = 2048;

/// What a launch is given: where operands lie, and the program.
struct Program {
  Space<MOST_OPERANDS> space;
  void* data[MOST_OPERANDS];
  DType dtypes[MOST_OPERANDS];
  int inputs, outputs, constants, instructions;
  int stored[MOST_OPERANDS];
  double values[MOST_REGISTERS];
  uint64_t code[MOST_WORDS];
};

template <class real>
__device__ real floor_power_of_two(real x) {
  using Bits = std::conditional_t<sizeof(real) == 4, uint32_t, uint64_t>;
  constexpr Bits KEPT = sizeof(real) == 4 ? Bits(0xff800000u) : Bits(0xfff0000000000000ull);
  return x != x ? x : __builtin_bit_cast(real, Bits(__builtin_bit_cast(Bits, x) & KEPT));
}

template <class real>
__device__ real operate(int operation, real a, real b, real c) {
  switch (operation) {
    case MAP_add: return a + b;
    case MAP_sub: return a - b;
    case MAP_mul: return a * b;
    case MAP_div: return a / b;
    case MAP_maximum: return Max()(a, b);
    case MAP_minimum: return a < b || a != a ? a : b;
    case MAP_neg: return -a;
    case MAP_abs: return std::fabs(a);
    case MAP_exp: return std::exp(a);
    case MAP_log: return std::log(a);
    case MAP_sqrt: return std::sqrt(a);
    case MAP_rsqrt: return 1 / std::sqrt(a);
    case MAP_tanh: return std::tanh(a);
    case MAP_sigmoid: return 1 / (1 + std::exp(-a));
    case MAP_silu: return a / (1 + std::exp(-a));
    case MAP_relu: return a > 0 || a != a ? a : 0;
    case MAP_square: return a * a;
    case MAP_reciprocal: return 1 / a;
    case MAP_less: return a < b;
    case MAP_less_equal: return a <= b;
    case MAP_equal: return a == b;
    case MAP_select: return a != 0 ? b : c;
    case MAP_floor_power_of_two: return floor_power_of_two(a);
    case MAP_round_bf16: return bf16(float(a));
    case MAP_round_f8e4m3: return f8e4m3(float(a));
    default: return f8e5m2(float(a));
  }
}

template <class real>
__global__ void map(TITAN_PARAMETER(Program) program) {
  real registers[MOST_REGISTERS];
  registers[0] = 0;  // which stands where an operation has no argument
  int64_t at[MOST_OPERANDS];
  const int operands = program.inputs + program.outputs;
  for (int c = 0; c < program.constants; c++) registers[program.inputs + c] = real(program.values[c]);
  for_each(program.space.total, [&](int64_t i) {
    program.space.at(i, operands, at);
    for (int k = 0; k < program.inputs; k++) registers[k] = Elements<real>(program.data[k], program.dtypes[k])[at[k]];
    for (int k = 0; k < program.instructions; k++) {
      const uint64_t word = program.code[k];
      const int operation = int(word & 0xffff), a = int(word >> 28 & 0xfff), b = int(word >> 40 & 0xfff), c = int(word >> 52 & 0xfff);
      registers[word >> 16 & 0xfff] = operate<real>(operation, registers[a], registers[b], registers[c]);
    }
    for (int k = 0; k < program.outputs; k++) Elements<real>(program.data[program.inputs + k], program.dtypes[program.inputs + k]).put(at[program.inputs + k], registers[program.stored[k]]);
  });
}

}  // namespace

std::string refuse_map(const Call& call) {
  const int64_t instructions = call.attributes[2].i - (call.num_operands - call.attributes[0].i);
  return instructions <= MOST_WORDS ? "" : "the code has " + std::to_string(instructions) + " instructions; expected: at most " + std::to_string(MOST_WORDS) + " on this device";
}

void run_map(const Call& call) {
  Program program = {};
  const Attribute* const a = call.attributes;
  program.inputs = int(a[0].i), program.outputs = call.num_operands - program.inputs;
  program.instructions = int(a[2].i) - program.outputs;
  for (int k = 0; k < program.instructions; k++) program.code[k] = uint64_t(a[3 + k].i);
  const Attribute* const stored = a + 3 + program.instructions;
  for (int k = 0; k < program.outputs; k++) program.stored[k] = int(stored[k].i);
  program.constants = int(stored[program.outputs].i);
  for (int c = 0; c < program.constants; c++) program.values[c] = stored[program.outputs + 1 + c].f;
  program.space = Space<MOST_OPERANDS>(call.operands, call.num_operands, program.inputs);
  for (int i = 0; i < call.num_operands; i++) program.data[i] = call[i].data, program.dtypes[i] = call[i].dtype;
  with_real(call[program.inputs], [&](auto zero) { launch(map<decltype(zero)>, {blocks_for(program.space.total, BLOCK_THREADS), BLOCK_THREADS}, call, program); });
}

}  // namespace titan::cuda
