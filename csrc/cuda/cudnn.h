// Attention by NVIDIA's cuDNN, as far as it is asked for: a plan for a shape, made once, and its runs. cudnn.cpp makes it by cuDNN's frontend,
// host/cudnn.cpp plays it on a CPU. What cuDNN's documents do not allow is a Failure in both.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

namespace titan::cuda::cudnn {

/// From one element to the next of its kind, in elements; the numbers of a head lie side by side.
struct Strides {
  int64_t batch, token, head;
  bool operator==(const Strides&) const = default;
};

/// Which keys a query sees: those at its own place and before, or all.
enum class Mask { causal, none };

/// Letters as in csrc/cpu/ops/attention.h. All tensors are bf16, but for lse: f32, packed [B, H, T], the natural logarithm of a query's sum.
struct Attention {
  int64_t B, T, S, H, G, K;
  double scale;
  Mask mask;
  bool backward;
  Strides q, k, v, o;
  Strides grad, dq, dk, dv;  // of backward alone
  bool operator==(const Attention&) const = default;
};
/// Memory of the GPU. o and lse are written by forward and read by backward.
struct Places {
  const void *q, *k, *v;
  void *o, *lse;
  const void* grad;
  void *dq, *dk, *dv;
};

/// What addresses and strides of tensors are multiples of, in bytes: kernels load 16 at a time. Of the workspace, what cudaMalloc gives.
constexpr int64_t TENSOR_ALIGNMENT = 16, WORKSPACE_ALIGNMENT = 256;

/// Why cuDNN takes no such attention, or not there; "" where it does.
std::string refusal(const Attention& attention);
std::string refusal(const Attention& attention, const Places& places, const void* workspace);

class Plan {
 public:
  virtual ~Plan() = default;
  virtual uint64_t workspace_bytes() const = 0;
  /// Launches it. It may be captured.
  virtual void run(const Places& places, void* workspace, void* stream) const = 0;
};

/// A plan of the current GPU that needs at most so many bytes. Two of its runs are the same bit for bit.
std::unique_ptr<Plan> make_plan(const Attention& attention, uint64_t most_workspace_bytes);
/// The GPU that the calling thread uses.
int current_gpu();
/// The workspace of such a plan for a GPU that is not here, by its properties as cuDNN writes them as JSON, and its architecture, such as 90. Of cuDNN
/// itself alone: it makes the very plan, as far as without a GPU.
uint64_t workspace_bytes_on(const std::string& properties, int sm_version, const Attention& attention, uint64_t most_workspace_bytes);

}  // namespace titan::cuda::cudnn
