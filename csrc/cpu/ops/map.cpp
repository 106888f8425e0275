// Any element-wise computation: x* -> y*, a small register program run over tiles that stay in L1, so that memory is touched once.
//
// All operands are viewed with the same dims (stride 0 broadcasts; i32, bf16 and float8 inputs are converted while loaded, bf16 and float8
// outputs rounded when stored); an output may be exactly an input's memory, where their elements are of one size. Registers: the inputs, then the constants, then temporaries. One code word per instruction,
//   operation | to << 16 | a << 28 | b << 40 | c << 52
// and after the instructions one word per output: the register stored to it.
//
// Memory-bound for a dozen arithmetic operations and one or two exponentials per element. Dims are first ordered and merged to as few as
// possible; a tile is then a piece of one inner row, or several short rows. A register of a tile is a piece of an operand's own memory
// where that is contiguous (nothing is copied, also for outputs), else a buffer on the thread's stack. Every element is computed on its
// own: the same bits for any number of threads. All this follows from a call's dims and strides, so it is worked out at load.
#include <algorithm>
#include <new>

#include "../../signature.h"
#include "../kernels.h"
#include "../parallel.h"
#include "../storage.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

constexpr int MOST_OPERANDS = 64, MOST_REGISTERS = 128;
constexpr int64_t BUFFER_BYTES = 64 << 10, TILE_BYTES = 32 << 10, MOST_TILE = 1024;

constexpr int ARITY[] = {
#define KERNEL(name, operands, attributes, dtypes)
#define MAP(name, arity) arity,
#include "../../kernels.def"
#undef MAP
#undef KERNEL
};

/// The attributes of a call, apart.
struct Program {
  int inputs, outputs, registers, constants, instructions;
  const Attribute *code, *stored, *values;

  explicit Program(const Call& call) {
    inputs = int(call.attributes[0].i);
    outputs = call.num_operands - inputs;
    registers = int(call.attributes[1].i);
    instructions = int(call.attributes[2].i) - outputs;
    code = call.attributes + 3;
    stored = code + instructions;
    constants = int(stored[outputs].i);
    values = stored + outputs + 1;
  }
};
struct Instruction {
  int operation, to, arguments[3];
  explicit Instruction(Attribute word) {
    const uint64_t w = uint64_t(word.i);
    operation = int(w & 0xffff), to = int(w >> 16 & 0xfff);
    for (int k = 0; k < 3; k++) arguments[k] = int(w >> (28 + 12 * k) & 0xfff);
  }
};

/// Where a number has its sign and its exponent.
template <class real>
constexpr integer<real> EXPONENT_BITS = sizeof(real) == 4 ? integer<real>(0xff800000) : integer<real>(0xfff0000000000000);

template <class real>
void execute(int operation, real* to, const real* a, const real* b, const real* c, int64_t n) {
  auto unary = [&](auto f) { for_lanes<real>(n, [&](int64_t i, int64_t lanes) { store(to + i, f(load(a + i, lanes)), lanes); }); };
  auto binary = [&](auto f) { for_lanes<real>(n, [&](int64_t i, int64_t lanes) { store(to + i, f(load(a + i, lanes), load(b + i, lanes)), lanes); }); };
  using V = vec<real>;
  const V one = splat(real(1)), none = {};
  switch (operation) {
    case MAP_add: return binary([](V x, V y) { return x + y; });
    case MAP_sub: return binary([](V x, V y) { return x - y; });
    case MAP_mul: return binary([](V x, V y) { return x * y; });
    case MAP_div: return binary([](V x, V y) { return x / y; });
    case MAP_maximum: return binary([](V x, V y) { return maximum(x, y); });
    case MAP_minimum: return binary([](V x, V y) { return minimum(x, y); });
    case MAP_neg: return unary([](V x) { return -x; });
    case MAP_abs: return unary([](V x) { return (V)((ivec<real>)x & splat_integer<real>(std::numeric_limits<integer<real>>::max())); });
    case MAP_exp: return unary([](V x) { return exp_lanes<real>(x); });
    case MAP_log: return unary([](V x) { return log_lanes<real>(x); });
    case MAP_sqrt: return unary([](V x) { return sqrt_lanes<real>(x); });
    case MAP_rsqrt: return unary([](V x) { return 1 / sqrt_lanes<real>(x); });
    case MAP_tanh: return unary([](V x) { return tanh_lanes<real>(x); });
    case MAP_sigmoid: return unary([](V x) { return sigmoid_lanes<real>(x); });
    case MAP_silu: return unary([](V x) { return silu_lanes<real>(x); });
    case MAP_relu: return unary([=](V x) { return maximum(x, none); });
    case MAP_square: return unary([](V x) { return x * x; });
    case MAP_reciprocal: return unary([](V x) { return 1 / x; });
    case MAP_less: return binary([=](V x, V y) { return x < y ? one : none; });
    case MAP_less_equal: return binary([=](V x, V y) { return x <= y ? one : none; });
    case MAP_equal: return binary([=](V x, V y) { return x == y ? one : none; });
    case MAP_select:
      return for_lanes<real>(n, [&](int64_t i, int64_t lanes) { store(to + i, load(a + i, lanes) != 0 ? load(b + i, lanes) : load(c + i, lanes), lanes); });
    case MAP_floor_power_of_two: return unary([](V x) { return x != x ? x : (V)((ivec<real>)x & splat_integer<real>(EXPONENT_BITS<real>)); });
    case MAP_round_bf16: return unary([](V x) { return round_bf16<real>(x); });
    case MAP_round_f8e4m3: return unary([](V x) { return round_to<real, f8e4m3>(x); });
    case MAP_round_f8e5m2: return unary([](V x) { return round_to<real, f8e5m2>(x); });
  }
}

/// The common index space of the operands, its dims ordered for the first output and merged.
struct Space {
  int rank = 0;
  int64_t dims[MAX_RANK], strides[MOST_OPERANDS][MAX_RANK], inner, rows = 1;

  Space(const Tensor* operands, int n, int leading) {
    int order[MAX_RANK];
    const int64_t* by = operands[leading].strides;
    for (int d = 0; d < operands[0].rank; d++) {
      if (operands[0].dims[d] == 1) continue;
      int at = rank++;  // sorted in as it comes: std::stable_sort would allocate
      for (; at > 0 && by[order[at - 1]] < by[d]; at--) order[at] = order[at - 1];
      order[at] = d;
    }
    int merged = 0;
    for (int k = 0; k < rank; k++) {
      const int64_t size = operands[0].dims[order[k]];
      bool joins = merged > 0;
      for (int i = 0; joins && i < n; i++) joins = strides[i][merged - 1] == operands[i].strides[order[k]] * size;
      if (joins) dims[merged - 1] *= size;
      else dims[merged++] = size;
      for (int i = 0; i < n; i++) strides[i][merged - 1] = operands[i].strides[order[k]];
    }
    if (merged == 0) {
      dims[merged++] = 1;
      for (int i = 0; i < n; i++) strides[i][0] = 1;
    }
    rank = merged;
    inner = dims[rank - 1];
    for (int d = 0; d < rank - 1; d++) rows *= dims[d];
  }
  int64_t inner_stride(int i) const { return strides[i][rank - 1]; }
  int64_t offset(int i, int64_t row) const {
    int64_t at = 0;
    for (int d = rank - 2; d >= 0; row /= dims[d], d--) at += row % dims[d] * strides[i][d];
    return at;
  }
  bool constant(int i) const {
    return std::all_of(strides[i], strides[i] + rank, [](int64_t s) { return s == 0; });
  }
  bool contiguous(int i) const {
    int64_t stride = 1;
    for (int d = rank - 1; d >= 0; stride *= dims[d], d--)
      if (strides[i][d] != stride) return false;
    return true;
  }
};

/// May two operands share an element? Not if they lie apart, or are different columns of one matrix.
bool overlap(const Call& call, const Space& space, int i, int j) {
  auto bytes = [&](int k) {
    int64_t last = 0;
    for (int d = 0; d < space.rank; d++) last += (space.dims[d] - 1) * space.strides[k][d];
    return (last + 1) * int64_t(size_of(call[k].dtype));
  };
  const int64_t apart = call[j].as<char>() - call[i].as<char>();
  if (apart >= bytes(i) || -apart >= bytes(j)) return false;
  const int64_t element = int64_t(size_of(call[i].dtype));
  if (space.rank != 2 || call[i].dtype != call[j].dtype || apart % element != 0) return true;
  const int64_t row = space.strides[i][0], inner = space.dims[1];
  if (row != space.strides[j][0] || row <= 0 || space.strides[i][1] != 1 || space.strides[j][1] != 1) return true;
  const int64_t columns = (apart / element % row + row) % row;
  return columns < inner || columns > row - inner;
}

/// How a call is run: which operands are used where they lie (direct), filled once (constant), or else copied per tile. A tile of a dense
/// operand is one run of memory. The decoded instructions lie behind it.
struct Plan {
  Program program;
  Space space;
  int64_t row_tile, column_tile, pieces, tiles;
  bool direct[MOST_OPERANDS] = {}, constant[MOST_OPERANDS] = {}, dense[MOST_OPERANDS] = {};

  static uint64_t bytes(const Call& call) { return sizeof(Plan) + size_t(Program(call).instructions) * sizeof(Instruction); }
  Plan(const Call& call, int64_t element) : program(call), space(call.operands, call.num_operands, program.inputs) {
    for (int k = 0; k < program.instructions; k++) new (reinterpret_cast<Instruction*>(this + 1) + k) Instruction(program.code[k]);
    const int64_t tile = std::clamp<int64_t>(TILE_BYTES / (element * program.registers) / 64 * 64, 64, MOST_TILE);
    if (space.inner >= tile / 2) {
      row_tile = 1;
      pieces = (space.inner + tile - 1) / tile;
      column_tile = std::min((space.inner + pieces - 1) / pieces + 15, tile) / 16 * 16;
      pieces = (space.inner + column_tile - 1) / column_tile;
    } else {
      row_tile = std::max<int64_t>(1, tile / std::max<int64_t>(space.inner, 1)), column_tile = space.inner, pieces = 1;
    }
    tiles = (space.rows + row_tile - 1) / row_tile * pieces;
    for (int i = 0; i < call.num_operands; i++) {
      constant[i] = i < program.inputs && space.constant(i);
      dense[i] = !constant[i] && (row_tile == 1 ? space.inner_stride(i) == 1 : space.contiguous(i));
      direct[i] = dense[i] && is_real(call[i].dtype);
    }
    for (int o = 0; o < program.outputs; o++) {
      const int64_t stored = program.stored[o].i;
      if (stored < program.inputs) direct[stored] = false;  // an input that is itself an output is copied before anything is stored
      direct[program.inputs + o] &= written_early(call, o);
    }
  }
  Plan(const Plan&) = delete;
  const Instruction& instruction(int k) const { return reinterpret_cast<const Instruction*>(this + 1)[k]; }
  int64_t first_row(int64_t tile) const { return tile / pieces * row_tile; }
  int64_t first_column(int64_t tile) const { return tile % pieces * column_tile; }

  /// May the instruction that makes output o write straight to memory? Not if a later one still reads an input that may be there.
  bool written_early(const Call& call, int o) const {
    const int64_t r = program.stored[o].i;
    if (r < program.inputs + program.constants) return false;
    for (int before = 0; before < o; before++)
      if (program.stored[before].i == r) return false;
    int writer = -1;
    for (int k = 0; k < program.instructions; k++)
      if (instruction(k).to == r) {
        if (writer >= 0) return false;
        writer = k;
      }
    for (int k = writer + 1; k < program.instructions; k++) {
      const Instruction& later = instruction(k);
      for (int j = 0; j < ARITY[later.operation]; j++)
        if (const int i = later.arguments[j]; i < program.inputs && overlap(call, space, i, program.inputs + o)) return false;
    }
    return true;
  }
};

template <class real, class T>
void gather(const T* from, int64_t stride, real* to, int64_t n) {
  if constexpr (IS_STORED<T>)
    if (stride == 1) return for_lanes<float>(n, [&](int64_t i, int64_t lanes) { store(to + i, load(from + i, lanes), lanes); });
  if (stride == 1) std::copy_n(from, n, to);
  else if (stride == 0) std::fill_n(to, n, real(*from));
  else
    for (int64_t i = 0; i < n; i++) to[i] = real(from[i * stride]);
}
template <class real>
void read(const Tensor& x, int64_t offset, int64_t stride, real* to, int64_t n) {
  if (x.dtype == DType::i32) return gather(x.as<int32_t>() + offset, stride, to, n);
  if constexpr (sizeof(real) == 4) {
    if (x.dtype == DType::bf16) return gather(x.as<bf16>() + offset, stride, to, n);
    if (x.dtype == DType::f8e4m3) return gather(x.as<f8e4m3>() + offset, stride, to, n);
    if (x.dtype == DType::f8e5m2) return gather(x.as<f8e5m2>() + offset, stride, to, n);
  }
  gather(x.as<real>() + offset, stride, to, n);
}
template <class real, class T>
void scatter(const real* from, T* to, int64_t stride, int64_t n) {
  if (stride == 1) for_lanes<real>(n, [&](int64_t i, int64_t lanes) { store(to + i, load(from + i, lanes), lanes); });
  else
    for (int64_t i = 0; i < n; i++) to[i * stride] = T(from[i]);
}
template <class real>
void write(const Tensor& y, int64_t offset, int64_t stride, const real* from, int64_t n) {
  if constexpr (sizeof(real) == 4) {
    if (y.dtype == DType::bf16) return scatter(from, y.as<bf16>() + offset, stride, n);
    if (y.dtype == DType::f8e4m3) return scatter(from, y.as<f8e4m3>() + offset, stride, n);
    if (y.dtype == DType::f8e5m2) return scatter(from, y.as<f8e5m2>() + offset, stride, n);
  }
  scatter(from, y.as<real>() + offset, stride, n);
}

/// Where the next tile's dense inputs lie. They are fetched into L2 a little before each instruction, so that memory works while L1 is computed on.
struct Next {
  const char* inputs[MOST_OPERANDS];
  int64_t element[MOST_OPERANDS];
  int count = 0;

  Next(const Call& call, const Plan& plan, int64_t tile) {
    for (int i = 0; i < plan.program.inputs; i++)
      if (plan.dense[i]) {
        element[count] = int64_t(size_of(call[i].dtype));
        inputs[count] = call[i].as<char>() + (plan.space.offset(i, plan.first_row(tile)) + plan.first_column(tile)) * element[count];
        count++;
      }
  }
  void prefetch(int64_t begin, int64_t end) const {
    for (int i = 0; i < count; i++)
      for (int64_t at = begin * element[i]; at < end * element[i]; at += 64) __builtin_prefetch(inputs[i] + at, 0, 2);
  }
};

template <class real>
void run_tiles(const Call& call, const Plan& plan, int64_t first_tile, int64_t last_tile) {
  const Program& program = plan.program;
  const Space& space = plan.space;
  alignas(64) char memory[BUFFER_BYTES];
  const int64_t room = (plan.row_tile * plan.column_tile + LANES<real> - 1) / LANES<real> * LANES<real>;
  real *buffer[MOST_REGISTERS], *registers[MOST_REGISTERS];
  for (int r = 0; r < program.registers; r++) registers[r] = buffer[r] = reinterpret_cast<real*>(memory) + r * room;
  for (int i = 0; i < program.inputs; i++)
    if (plan.constant[i]) read(call[i], 0, 0, buffer[i], room);
  for (int c = 0; c < program.constants; c++) std::fill_n(buffer[program.inputs + c], room, real(program.values[c].f));

  for (int64_t tile = first_tile; tile < last_tile; tile++) {
    const int64_t row = plan.first_row(tile), rows = std::min(plan.row_tile, space.rows - row);
    const int64_t column = plan.first_column(tile), columns = std::min(plan.column_tile, space.inner - column), n = rows * columns;
    auto place = [&](int i, int64_t r) { return space.offset(i, r) + column * space.inner_stride(i); };
    for (int i = 0; i < program.inputs; i++) {
      if (plan.direct[i]) registers[i] = call[i].as<real>() + place(i, row);
      else if (!plan.constant[i])
        for (int64_t r = 0; r < rows; r++) read(call[i], place(i, row + r), space.inner_stride(i), buffer[i] + r * columns, columns);
    }
    for (int o = 0; o < program.outputs; o++)
      if (const int i = program.inputs + o; plan.direct[i]) registers[program.stored[o].i] = call[i].as<real>() + place(i, row);
    const Next next(call, plan, tile + 1 < last_tile ? tile + 1 : tile);
    for (int k = 0; k < program.instructions; k++) {
      next.prefetch(n * k / program.instructions, n * (k + 1) / program.instructions);
      const Instruction& in = plan.instruction(k);
      const int arity = ARITY[in.operation];
      execute<real>(in.operation, registers[in.to], registers[in.arguments[0]], registers[arity > 1 ? in.arguments[1] : 0], registers[arity > 2 ? in.arguments[2] : 0], n);
    }
    for (int o = 0; o < program.outputs; o++)
      if (const int i = program.inputs + o; !plan.direct[i]) {
        const real* from = registers[program.stored[o].i];
        for (int64_t r = 0; r < rows; r++) write(call[i], place(i, row + r), space.inner_stride(i), from + r * columns, columns);
      }
  }
}

}  // namespace

uint64_t state_bytes_map(const Call& call) { return Plan::bytes(call); }

void prepare_map(const Call& call, void* state) {
  with_real(widened(call[int(call.attributes[0].i)].dtype), [&](auto zero) { new (state) Plan(call, sizeof zero); });
}

void run_map(const Call& call) {
  const Plan& plan = *static_cast<const Plan*>(call.state);
  with_real(call[plan.program.inputs].dtype, [&](auto zero) {
    using real = decltype(zero);
    if (plan.tiles <= 1) return run_tiles<real>(call, plan, 0, plan.tiles);  // a scalar's worth of work wakes no threads
    for_each(call.threads, call.threads, [&](int64_t part) { run_tiles<real>(call, plan, plan.tiles * part / call.threads, plan.tiles * (part + 1) / call.threads); });
  });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
namespace {
std::string check_code(const Program& program) {
  bool written[MOST_REGISTERS] = {};
  const int first_temporary = program.inputs + program.constants;
  if (program.registers > MOST_REGISTERS || program.registers < first_temporary)
    return "there are " + std::to_string(program.registers) + " registers; expected: " + std::to_string(first_temporary) + " (inputs and constants) to " + std::to_string(MOST_REGISTERS);
  std::fill_n(written, first_temporary, true);
  for (int k = 0; k < program.instructions; k++) {
    const Instruction in(program.code[k]);
    const std::string which = "instruction " + std::to_string(k) + " of the code ";
    if (in.operation >= MAP_COUNT) return which + "has operation " + std::to_string(in.operation) + "; expected: less than " + std::to_string(MAP_COUNT);
    for (int j = 0; j < ARITY[in.operation]; j++)
      if (in.arguments[j] >= program.registers || !written[in.arguments[j]]) return which + "reads register " + std::to_string(in.arguments[j]) + "; expected: one that holds a value";
    if (in.to < first_temporary || in.to >= program.registers)
      return which + "writes register " + std::to_string(in.to) + "; expected: a temporary, " + std::to_string(first_temporary) + " to " + std::to_string(program.registers - 1);
    written[in.to] = true;
  }
  for (int o = 0; o < program.outputs; o++)
    if (const int64_t r = program.stored[o].i; r < 0 || r >= program.registers || !written[r])
      return "output " + std::to_string(o) + " is register " + std::to_string(r) + "; expected: one that holds a value";
  return "";
}
}  // namespace

std::string check_map(const Call& call) {
  const Attribute* a = call.attributes;
  const int64_t inputs = call.num_attributes >= 4 ? a[0].i : -1, outputs = call.num_operands - inputs;
  if (inputs < 0 || outputs < 1 || call.num_operands > MOST_OPERANDS)
    return "there are " + std::to_string(inputs) + " inputs and " + std::to_string(outputs) + " outputs; expected: at least one output, and at most " + std::to_string(MOST_OPERANDS) + " operands";
  if (a[2].i < outputs || a[2].i > call.num_attributes - 4 || a[3 + a[2].i].i != call.num_attributes - 4 - a[2].i)
    return "the attribute words do not add up; expected: inputs, registers, length and words of the code (which ends with one word per output), length and words of the constants";
  if (std::string error = check_code(Program(call)); !error.empty()) return error;
  std::vector<std::string> names;
  for (int i = 0; i < call.num_operands; i++) names.push_back(i < inputs ? "x[" + std::to_string(i) + "]" : "y[" + std::to_string(i - inputs) + "]");
  Check check(call, names, 4);
  const DType real = check.real_or_stored(int(inputs));
  const Tensor& y = call[int(inputs)];
  for (int i = 0; i < call.num_operands; i++) {
    const Tensor& t = call[i];
    check.require(t.rank == y.rank && std::equal(t.dims, t.dims + t.rank, y.dims), names[size_t(i)] + " has dims " + to_text(t.dims, t.rank) + "; expected: " + to_text(y.dims, y.rank) + " as the first output");
    check.require(widened(t.dtype) == real || (i < inputs && t.dtype == DType::i32), names[size_t(i)] + " is " + name_of(t.dtype) + "; expected: " + name_of(real));
    if (i >= inputs) check.writable(i);
    for (int o = int(inputs); i < inputs && o < call.num_operands; o++) check.in_place(i, o);
  }
  return check.error();
}
}  // namespace titan::cpu
#endif
