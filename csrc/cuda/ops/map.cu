// Any element-wise computation: x* -> y*, a register program (csrc/cpu/ops/map.cpp tells its words), which becomes the source of a kernel of its own
// when a program is loaded, and which NVRTC compiles. Dims, strides, types and the program's constants are constants of the source, its registers
// variables of C++, so that nothing is left of the program but arithmetic. Operations are the functions of map_formulas.h.
//
// All operands are viewed with the same dims, merged where all of them allow. A thread has `width` neighbours of the innermost dim: as many as lie in
// 16 bytes of the operand with the smallest elements, at most 8. An operand that lies side by side there is read or written in accesses of up to
// 16 bytes, where it is aligned; one that repeats there is read once; others go one by one. An output may lie where an input does: a thread reads all of
// its elements before it writes any.
// Bytes moved: each operand's element once.
#include <cstdio>

#include "../../signature.h"
#include "../device.h"
#include "../kernels.h"
#include "../nvrtc.h"

namespace titan::cuda {
namespace {

constexpr int MOST_OPERANDS = 64, MOST_WIDTH = 8;
/// A thread's elements of all operands: with them and a program's temporaries, registers do not spill.
constexpr size_t MOST_BYTES = 256;

constexpr const char* NAMES[] = {
#define KERNEL(name, operands, attributes, dtypes)
#define MAP(name, arity) #name,
#include "../../kernels.def"
#undef MAP
};
constexpr int ARITY[] = {
#define MAP(name, arity) arity,
#include "../../kernels.def"
#undef MAP
#undef KERNEL
};

/// As map_formulas.h has it.
struct Operands {
  void* data[MOST_OPERANDS];
  bool aligned;
};

/// What a call's launches have in common.
struct State {
  const CompiledKernel* kernel;
  unsigned blocks;
  uint8_t alignment[MOST_OPERANDS];  // that accesses of several elements need, 1 where there are none
};

std::string text_of(int64_t n) { return std::to_string(n); }
/// By its bits, as decimals may round.
std::string constant(double value, bool is_f64) {
  char text[96];
  if (is_f64) std::snprintf(text, sizeof text, "__builtin_bit_cast(real, uint64_t(0x%llxu))", static_cast<unsigned long long>(__builtin_bit_cast(uint64_t, value)));
  else std::snprintf(text, sizeof text, "__builtin_bit_cast(real, uint32_t(0x%xu))", __builtin_bit_cast(uint32_t, float(value)));
  return text;
}

const char* type_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return "double";
    case DType::f32: return "float";
    case DType::i32: return "int32_t";
    default: return name_of(dtype);
  }
}

/// A call's kernel as a source.
class Map {
 public:
  explicit Map(const Call& call) : call_(call), inputs_(int(call.attributes[0].i)), n_(call.num_operands), space_(call.operands, n_, inputs_), width_(choose_width()) {}

  int64_t total() const { return space_.total; }
  unsigned blocks() const { return unsigned((total() + int64_t{BLOCK_THREADS} * width_ - 1) / (int64_t{BLOCK_THREADS} * width_)); }
  uint8_t alignment(int i) const { return uint8_t(stride(i) == 1 ? std::min<size_t>(16, size_t(width_) * size_of(call_[i].dtype)) : 1); }

  /// Its name follows from its text, so that sources go into one file.
  std::string name() const {
    uint64_t hash = 14695981039346656037u;
    for (const char c : body()) hash = (hash ^ uint8_t(c)) * 1099511628211u;
    char text[32];
    std::snprintf(text, sizeof text, "map_%016llx", static_cast<unsigned long long>(hash));
    return text;
  }
  std::string source() const {
    const std::string own = name(), index = is_short() ? "unsigned" : "unsigned long long", width = text_of(width_);
    return "#include \"backend.h\"\n#include \"map_formulas.h\"\nnamespace titan::cuda::map::" + own + " {\n" + body() + "extern \"C\" __global__ void " + own + "(const __grid_constant__ Operands operands) {\n" +
           "  const Index first = (Index(blockIdx.x) * " + text_of(BLOCK_THREADS) + " + threadIdx.x) * " + width + ", rest = first < " + text_of(total()) + " ? " + text_of(total()) + " - first : 0;\n" +
           "  if (operands.aligned && rest >= " + width + ") return elements<" + width + ">(operands, first);\n" +
           "  for (Index k = 0; k < " + width + " && k < rest; k++) elements<1>(operands, first + k);\n}\n}\n";
  }

 private:
  int64_t stride(int i) const { return space_.rank ? space_.strides[i][space_.rank - 1] : 0; }
  bool is_f64() const { return call_[inputs_].dtype == DType::f64; }

  /// May a thread have so many neighbours of the innermost dim? Where there are several dims, rows have to be of whole ones.
  bool allows(int width) const {
    const int last = space_.rank - 1;
    if (last < 0 || stride(inputs_) != 1 || (last > 0 && space_.dims[last] % width)) return false;
    for (int i = 0; i < n_; i++)
      for (int d = 0; d < last; d++)
        if (stride(i) == 1 && space_.strides[i][d] % width) return false;
    return size_t(n_ * width) * (is_f64() ? 8 : 4) <= MOST_BYTES;
  }
  int choose_width() const {
    size_t smallest = 16;
    for (int i = 0; i < n_; i++)
      if (stride(i) == 1) smallest = std::min(smallest, size_of(call_[i].dtype));
    int width = std::min(MOST_WIDTH, int(16 / smallest));
    while (width > 1 && !allows(width)) width /= 2;
    return width;
  }
  /// Do all places fit into 31 bits?
  bool is_short() const {
    int64_t most = total() + int64_t{BLOCK_THREADS} * MOST_WIDTH;
    for (int i = 0; i < n_; i++) {
      int64_t last = 0;
      for (int d = 0; d < space_.rank; d++) last += (space_.dims[d] - 1) * space_.strides[i][d];
      most = std::max(most, last);
    }
    return most < int64_t{1} << 31;
  }
  /// Of operand i, from the coordinates.
  std::string place(int i) const {
    std::string sum;
    for (int d = 0; d < space_.rank; d++)
      if (const int64_t by = space_.strides[i][d]) sum += (sum.empty() ? "" : " + ") + ("d" + text_of(d)) + " * " + text_of(by);
    return sum.empty() ? "Index(0)" : sum;
  }

  /// N elements from `i` on: one per line, so that a message of the compiler shows the instruction.
  std::string body() const {
    const Attribute* const code = call_.attributes + 3;
    const int outputs = n_ - inputs_, registers = int(call_.attributes[1].i), instructions = int(call_.attributes[2].i) - outputs, constants = int(code[instructions + outputs].i);
    std::string text = std::string("using real = ") + (is_f64() ? "double" : "float") + ";\nusing Index = " + (is_short() ? "unsigned" : "unsigned long long") + ";\n";
    text += "template <int N>\n__device__ inline void elements(const Operands& operands, Index i) {\n";
    for (int d = space_.rank - 1; d >= 0; d--) {
      const std::string own = "d" + text_of(d), size = text_of(space_.dims[d]);
      text += d == 0 ? "  const Index d0 = i;\n" : "  const Index " + own + " = i % " + size + ";\n  i /= " + size + ";\n";
    }
    for (int k = 0; k < inputs_; k++)
      text += "  real x" + text_of(k) + "[N];\n  load<" + type_of(call_[k].dtype) + ", " + text_of(stride(k)) + ">(operands.data[" + text_of(k) + "], " + place(k) + ", x" + text_of(k) + ");\n";
    for (int k = 0; k < outputs; k++) text += "  real y" + text_of(k) + "[N];\n";
    text += "#pragma unroll\n  for (int k = 0; k < N; k++) {\n";
    for (int k = 0; k < inputs_; k++) text += "    [[maybe_unused]] const real r" + text_of(k) + " = x" + text_of(k) + "[k];\n";
    for (int k = 0; k < constants; k++) text += "    [[maybe_unused]] const real r" + text_of(inputs_ + k) + " = " + constant(code[instructions + outputs + 1 + k].f, is_f64()) + ";\n";
    for (int k = inputs_ + constants; k < registers; k++) text += "    [[maybe_unused]] real r" + text_of(k) + ";\n";
    for (int k = 0; k < instructions; k++) {
      const uint64_t word = uint64_t(code[k].i);
      const int operation = int(word & 0xffff);
      text += "    r" + text_of(word >> 16 & 0xfff) + " = map::" + NAMES[operation] + "(";
      for (int j = 0; j < ARITY[operation]; j++) text += (j ? ", r" : "r") + text_of(word >> (28 + 12 * j) & 0xfff);
      text += ");\n";
    }
    for (int k = 0; k < outputs; k++) text += "    y" + text_of(k) + "[k] = r" + text_of(code[instructions + k].i) + ";\n";
    text += "  }\n";
    for (int k = 0; k < outputs; k++) {
      const int i = inputs_ + k;
      text += std::string("  store<") + type_of(call_[i].dtype) + ", " + text_of(stride(i)) + ">(operands.data[" + text_of(i) + "], " + place(i) + ", y" + text_of(k) + ");\n";
    }
    return text + "}\n";
  }

  const Call& call_;
  const int inputs_, n_;
  const Space<MOST_OPERANDS> space_;
  const int width_;
};

}  // namespace

uint64_t state_bytes_of_map(const Call&) { return sizeof(State); }

void prepare_map(const Call& call, void* memory) {
  State& state = *static_cast<State*>(memory);
  const Map map(call);
  if (!map.total()) return;
  state.blocks = map.blocks();
  for (int i = 0; i < call.num_operands; i++) state.alignment[i] = map.alignment(i);
  state.kernel = &compile_kernel(map.name(), map.source());
}

void run_map(const Call& call) {
  const State& state = *static_cast<const State*>(call.state);
  if (!state.blocks) return;
  Operands operands = {};
  operands.aligned = true;
  for (int i = 0; i < call.num_operands; i++) {
    operands.data[i] = call[i].data;
    operands.aligned &= reinterpret_cast<uintptr_t>(call[i].data) % state.alignment[i] == 0;
  }
  launch_compiled(wait_for(*state.kernel), {state.blocks, BLOCK_THREADS}, call, operands);
}

}  // namespace titan::cuda
