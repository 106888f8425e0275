// What is done with i32 element by element: integer_map and integer_cast (csrc/cpu/ops/integers.cpp). Operands of one shape, any rank and strides.
// Memory-bound: each operand's element once.
#include "../../signature.h"
#include "../device.h"
#include "../kernels.h"

namespace titan::cuda {
namespace {

struct Operands {
  int32_t* data[4];
  int n;
};

__device__ int32_t operate(int operation, int32_t a, int32_t b, int32_t c) {
  switch (operation) {
    case MAP_add: return int32_t(uint32_t(a) + uint32_t(b));
    case MAP_sub: return int32_t(uint32_t(a) - uint32_t(b));
    case MAP_mul: return int32_t(uint32_t(a) * uint32_t(b));
    case MAP_maximum: return a > b ? a : b;
    case MAP_minimum: return a < b ? a : b;
    case MAP_less: return a < b;
    case MAP_less_equal: return a <= b;
    case MAP_equal: return a == b;
    default: return a ? b : c;  // select
  }
}
__global__ void integer_map(Operands operands, Space<4> space, int operation, int32_t value) {
  for_each(space.total, [&](int64_t i) {
    int64_t at[4];
    int32_t x[3] = {};
    space.at(i, operands.n, at);
    for (int k = 0; k + 1 < operands.n; k++) x[k] = operands.data[k][at[k]];
    operands.data[operands.n - 1][at[operands.n - 1]] = operands.n == 1 ? value : operate(operation, x[0], x[1], x[2]);
  });
}

template <class real>
__global__ void integer_cast(Elements<real> x, int32_t* y, Space<2> space) {
  for_each(space.total, [&](int64_t i) {
    int64_t at[2];
    space.at(i, 2, at);
    const double value = double(x[at[0]]);
    y[at[1]] = value != value ? 0 : value <= -2147483648. ? INT32_MIN : value >= 2147483647. ? INT32_MAX : int32_t(value);
  });
}

}  // namespace

void run_integer_map(const Call& call) {
  Operands operands = {};
  operands.n = call.num_operands;
  for (int i = 0; i < operands.n; i++) operands.data[i] = call[i].as<int32_t>();
  const Space<4> space(call.operands, operands.n, operands.n - 1);
  launch(integer_map, {blocks_for(space.total, BLOCK_THREADS), BLOCK_THREADS}, call, operands, space, int(call.attributes[0].i), int32_t(call.attributes[1].i));
}
void run_integer_cast(const Call& call) {
  with_real(call[0], [&](auto zero) {
    using real = decltype(zero);
    const Space<2> space(call.operands, 2, 1);
    launch(integer_cast<real>, {blocks_for(space.total, BLOCK_THREADS), BLOCK_THREADS}, call, Elements<real>(call[0]), call[1].as<int32_t>(), space);
  });
}

}  // namespace titan::cuda
