#include "attention_by_cudnn.h"

#include <mutex>
#include <vector>

#include "../failure.h"
#include "cudnn.h"

namespace titan::cuda {
namespace {

using cudnn::Attention;
using cudnn::Places;
using cudnn::Plan;
using cudnn::Strides;

/// Where kernels.def has what differs between the two: q_table is followed by the tables, positions and documents of both sides.
enum Direction { FORWARD, BACKWARD };
constexpr int Q_TABLE[] = {3, 6}, O[] = {11, 3}, LSE[] = {12, 4}, GRAD = 5, DQ = 12, DK = 13, DV = 14, SCRATCH[] = {13, 15};
constexpr int OTHER_O = 9, OTHER_LSE = 10;

/// The kernels of their own.
Kernel own[2];

template <Direction direction> bool is_ordered(const Call& call) { return !call[Q_TABLE[direction] + 2].data; }

/// A dim of one element has the stride that it would have if there were more: whatever it is, nobody goes by it.
Strides strides_of(const Tensor& x) {
  const int64_t head = x.dims[2] > 1 ? x.strides[2] : x.dims[3], token = x.dims[1] > 1 ? x.strides[1] : x.dims[2] * head;
  return {x.dims[0] > 1 ? x.strides[0] : x.dims[1] * token, token, head};
}

template <Direction direction> Attention attention_of(const Call& call) {
  const Tensor &q = call[0], &k = call[1];
  Attention a = {q.dims[0], q.dims[1], k.dims[1], q.dims[2], k.dims[2], q.dims[3], call.attributes[0].f, cudnn::Mask::causal, direction == BACKWARD, strides_of(q), strides_of(k), strides_of(call[2]), strides_of(call[O[direction]]), {}, {}, {}, {}};
  if constexpr (direction == BACKWARD) a.grad = strides_of(call[GRAD]), a.dq = strides_of(call[DQ]), a.dk = strides_of(call[DK]), a.dv = strides_of(call[DV]);
  return a;
}

template <Direction direction> Places places_of(const Call& call) {
  Places places = {call[0].data, call[1].data, call[2].data, call[O[direction]].data, call[LSE[direction]].data, nullptr, nullptr, nullptr, nullptr};
  if constexpr (direction == BACKWARD) places.grad = call[GRAD].data, places.dq = call[DQ].data, places.dk = call[DK].data, places.dv = call[DV].data;
  return places;
}

/// Layers of one shape have one plan, as have programs: making one takes long.
template <Direction direction> const Plan& plan_of(const Call& call) {
  struct Known {
    Attention attention;
    uint64_t most_bytes;
    int gpu;
    std::unique_ptr<Plan> plan;
  };
  static std::mutex mutex;
  static auto& known = *new std::vector<Known>;
  const std::lock_guard lock(mutex);
  const Attention attention = attention_of<direction>(call);
  const auto bytes = static_cast<uint64_t>(call[SCRATCH[direction]].dims[0]);
  const int gpu = cudnn::current_gpu();
  for (const Known& one : known)
    if (one.attention == attention && one.most_bytes == bytes && one.gpu == gpu) return *one.plan;
  known.push_back({attention, bytes, gpu, cudnn::make_plan(attention, bytes)});
  return *known.back().plan;
}

template <Direction direction> std::string check(const Call& call) {
  if (const std::string error = own[direction].check(call); !error.empty() || !is_ordered<direction>(call)) return error;
  for (const int behind : {0, 1, 4, 5})
    if (call[Q_TABLE[direction] + behind].data) return "there are no positions, but rotation tables or documents; expected: none of them for cuDNN, or all";
  if (direction == FORWARD && call[OTHER_O].data) return "there are no positions, but other_o; expected: no other keys for cuDNN, or positions";
  if (call[0].dims[1] != call[1].dims[1]) return text("there are no positions for ", call[0].dims[1], " queries and ", call[1].dims[1], " keys; expected: as many of each for cuDNN, or positions");
  for (int i = 0; i < call.num_operands; i++) {
    const Tensor& tensor = call[i];
    if (tensor.data && tensor.rank == 4 && tensor.dtype != DType::bf16) return text("operand ", i, " is ", name_of(tensor.dtype), " and there are no positions; expected: bf16 for cuDNN, or positions");
  }
  const Tensor& lse = call[LSE[direction]];
  for (int64_t d = 2, stride = 1; d >= 0; stride *= lse.dims[d--])
    if (lse.dims[d] > 1 && lse.strides[d] != stride) return "lse is not packed and there are no positions; expected: packed for cuDNN, or positions";
  return cudnn::refusal(attention_of<direction>(call));
}

template <Direction direction> void run(const Call& call) {
  if (!is_ordered<direction>(call)) return own[direction].run(call);
  (*static_cast<const Plan* const*>(call.state))->run(places_of<direction>(call), call[SCRATCH[direction]].data, call.stream);
}

/// All runs of a call have its plan in common.
uint64_t state_bytes(const Call&) { return sizeof(const Plan*); }
template <Direction direction> void prepare(const Call& call, void* state) {
  if (is_ordered<direction>(call)) *static_cast<const Plan**>(state) = &plan_of<direction>(call);
}

template <Direction direction> void add(Kernel& kernel) {
  own[direction] = kernel;
  kernel.check = check<direction>, kernel.run = run<direction>, kernel.state_bytes = state_bytes, kernel.prepare = prepare<direction>;
}

}  // namespace

void add_cudnn(Kernel& forward, Kernel& backward) { add<FORWARD>(forward), add<BACKWARD>(backward); }

}  // namespace titan::cuda
