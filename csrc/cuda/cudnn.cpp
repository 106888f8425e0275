// By cuDNN's frontend. Plans and handles are never given back: the last of them would go when the process ends, and the driver may have gone before.
#include "cudnn.h"

#include <cuda_runtime_api.h>
#include <cudnn_frontend.h>

#include <cstdlib>
#include <map>

#include "../failure.h"

namespace titan::cuda::cudnn {
namespace {

namespace fe = cudnn_frontend;
using fe::graph::Graph;
using fe::graph::Tensor_attributes;

/// Numbers of the graph's tensors.
enum Uid : int64_t { Q = 1, K, V, O, LSE, GRAD, DQ, DK, DV };

void check(fe::error_t error, const Attention& a) {
  if (error.is_good()) return;
  throw Failure(TITAN_STATUS_INVALID_PROGRAM, text("cuDNN does not take attention ", a.backward ? "backward " : "", "of ", a.B, " sequences, ", a.T, " queries, ", a.S, " keys, ", a.H, " and ", a.G, " heads of ", a.K,
                                                   ": ", error.get_message()));
}

void check_status(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) throw Failure(TITAN_STATUS_INTERNAL, text("cuDNN failed in ", what, ": ", cudnnGetErrorString(status)));
}

/// Up to where plans for a GPU begin. `sm_version`, such as 90, is that of a GPU that is not here.
std::shared_ptr<Graph> make_graph(const Attention& a, int sm_version = 0) {
  // Of the two ways that are the same bit for bit on Hopper, the one whose workspace is not the square of the tokens: the frontend asks the environment.
  setenv("CUDNN_FRONTEND_ATTN_DP_WORKSPACE_LIMIT", "0", 0);
  const auto graph = std::make_shared<Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16).set_intermediate_data_type(fe::DataType_t::FLOAT).set_compute_data_type(fe::DataType_t::FLOAT);
  if (sm_version) graph->set_sm_version(sm_version);
  // cuDNN's dims are [B, heads, tokens, K], however they lie.
  const auto heads = [&](Uid uid, int64_t count, int64_t tokens, const Strides& at) {
    return graph->tensor(Tensor_attributes().set_uid(uid).set_dim({a.B, count, tokens, a.K}).set_stride({at.batch, at.head, at.token, 1}));
  };
  const auto give = [&](Tensor_attributes& tensor, Uid uid, int64_t count, int64_t tokens, const Strides& at) {
    tensor.set_uid(uid).set_output(true).set_dim({a.B, count, tokens, a.K}).set_stride({at.batch, at.head, at.token, 1});
  };
  const auto is_lse = [&](Tensor_attributes& tensor) -> Tensor_attributes& { return tensor.set_uid(LSE).set_data_type(fe::DataType_t::FLOAT).set_dim({a.B, a.H, a.T, 1}).set_stride({a.H * a.T, a.T, 1, 1}); };
  const auto scale = static_cast<float>(a.scale);
  const auto q = heads(Q, a.H, a.T, a.q), k = heads(K, a.G, a.S, a.k), v = heads(V, a.G, a.S, a.v);
  if (!a.backward) {
    const auto [o, lse] = graph->sdpa(q, k, v, fe::graph::SDPA_attributes().set_generate_stats(true).set_causal_mask(a.mask == Mask::causal).set_attn_scale(scale));
    give(*o, O, a.H, a.T, a.o), is_lse(*lse).set_output(true);
    return graph;
  }
  const auto o = heads(O, a.H, a.T, a.o), grad = heads(GRAD, a.H, a.T, a.grad);
  Tensor_attributes stats;
  const auto lse = graph->tensor(is_lse(stats));
  const auto [dq, dk, dv] = graph->sdpa_backward(q, k, v, o, grad, lse, fe::graph::SDPA_backward_attributes().set_causal_mask(a.mask == Mask::causal).set_attn_scale(scale).set_deterministic_algorithm(true));
  give(*dq, DQ, a.H, a.T, a.dq), give(*dk, DK, a.G, a.S, a.dk), give(*dv, DV, a.G, a.S, a.dv);
  return graph;
}

/// The first plan, by cuDNN's own order, that needs at most so many bytes. @returns how many it needs.
uint64_t choose_plan(Graph& graph, const Attention& a, uint64_t most_workspace_bytes) {
  check(graph.create_execution_plans({fe::HeurMode_t::A}), a);
  graph.deselect_workspace_greater_than(static_cast<int64_t>(most_workspace_bytes));
  check(graph.build_plans(), a);
  return static_cast<uint64_t>(graph.get_workspace_size());
}

cudnnHandle_t handle_of(int gpu) {
  static auto& handles = *new std::map<int, cudnnHandle_t>;
  cudnnHandle_t& handle = handles[gpu];
  if (!handle) check_status(cudnnCreate(&handle), "cudnnCreate");
  return handle;
}

class RealPlan : public Plan {
 public:
  RealPlan(const Attention& attention, uint64_t most_workspace_bytes) : attention_(attention), handle_(handle_of(current_gpu())), graph_(make_graph(attention)) {
    check(graph_->validate(), attention);
    check(graph_->build_operation_graph(handle_), attention);
    workspace_bytes_ = choose_plan(*graph_, attention, most_workspace_bytes);
  }
  uint64_t workspace_bytes() const override { return workspace_bytes_; }
  void run(const Places& places, void* workspace, void* stream) const override {
    if (const std::string error = refusal(attention_, places, workspace); !error.empty()) throw Failure(TITAN_STATUS_INTERNAL, error);
    check_status(cudnnSetStream(handle_, static_cast<cudaStream_t>(stream)), "cudnnSetStream");
    std::unordered_map<int64_t, void*> pack = {{Q, const_cast<void*>(places.q)}, {K, const_cast<void*>(places.k)}, {V, const_cast<void*>(places.v)}, {O, places.o}, {LSE, places.lse}};
    if (attention_.backward) pack.insert({{GRAD, const_cast<void*>(places.grad)}, {DQ, places.dq}, {DK, places.dk}, {DV, places.dv}});
    check(graph_->execute(handle_, pack, workspace), attention_);
  }

 private:
  const Attention attention_;
  const cudnnHandle_t handle_;
  const std::shared_ptr<Graph> graph_;
  uint64_t workspace_bytes_;
};

}  // namespace

std::unique_ptr<Plan> make_plan(const Attention& attention, uint64_t most_workspace_bytes) {
  if (const std::string error = refusal(attention); !error.empty()) throw Failure(TITAN_STATUS_INVALID_PROGRAM, error);
  return std::make_unique<RealPlan>(attention, most_workspace_bytes);
}

uint64_t workspace_bytes_on(const std::string& properties, int sm_version, const Attention& attention, uint64_t most_workspace_bytes) {
  if (const std::string error = refusal(attention); !error.empty()) throw Failure(TITAN_STATUS_INVALID_PROGRAM, error);
  const auto gpu = std::make_shared<fe::DeviceProperties>();
  check(gpu->deserialize({properties.begin(), properties.end()}), attention);
  const auto graph = make_graph(attention, sm_version);
  graph->set_device_properties(gpu);
  check(graph->validate(), attention);
  check(graph->build_operation_graph(), attention);
  return choose_plan(*graph, attention, most_workspace_bytes);
}

int current_gpu() {
  int gpu = 0;
  if (const cudaError_t error = cudaGetDevice(&gpu); error != cudaSuccess) throw Failure(TITAN_STATUS_INTERNAL, text("the GPU failed in cudaGetDevice: ", cudaGetErrorString(error)));
  return gpu;
}

}  // namespace titan::cuda::cudnn
