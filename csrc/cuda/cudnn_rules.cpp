// The rules are those of "Attention" in cuDNN's documentation of the frontend's operations (support matrix, and what sdpa and sdpa_backward take), with the
// head sizes that every architecture from sm_80 on takes in both directions.
#include <vector>

#include "../failure.h"
#include "cudnn.h"

namespace titan::cuda::cudnn {
namespace {

constexpr int64_t MOST_HEAD_SIZE = 128, ELEMENT_BYTES = 2;

bool is_aligned(const void* data, int64_t to) { return reinterpret_cast<uintptr_t>(data) % static_cast<uint64_t>(to) == 0; }

std::string refuse_strides(const char* name, const Strides& strides) {
  for (const int64_t stride : {strides.batch, strides.token, strides.head})
    if (stride * ELEMENT_BYTES % TENSOR_ALIGNMENT || stride <= 0)
      return text("cuDNN does not take a stride of ", stride, " in ", name, "; expected: a multiple of ", TENSOR_ALIGNMENT / ELEMENT_BYTES, " elements");
  return "";
}

struct Named {
  const char* name;
  const Strides& strides;
};

}  // namespace

std::string refusal(const Attention& a) {
  if (a.K <= 0 || a.K % 8 || a.K > MOST_HEAD_SIZE) return text("cuDNN does not take heads of ", a.K, "; expected: a multiple of 8, at most ", MOST_HEAD_SIZE);
  if (a.G <= 0 || a.H % a.G) return text("cuDNN does not take ", a.H, " query heads for ", a.G, " key heads; expected: a multiple");
  if (a.B <= 0 || a.T <= 0 || a.S <= 0) return text("cuDNN does not take ", a.B, " sequences of ", a.T, " queries and ", a.S, " keys; expected: at least one of each");
  if (a.backward && a.T == 1 && a.S == 1) return "cuDNN has no gradient for one query of one key; expected: more";
  for (const auto& [name, strides] : {Named{"q", a.q}, Named{"k", a.k}, Named{"v", a.v}, Named{"o", a.o}})
    if (const std::string error = refuse_strides(name, strides); !error.empty()) return error;
  if (!a.backward) return "";
  for (const auto& [name, strides] : {Named{"do", a.grad}, Named{"dq", a.dq}, Named{"dk", a.dk}, Named{"dv", a.dv}})
    if (const std::string error = refuse_strides(name, strides); !error.empty()) return error;
  return "";
}

std::string refusal(const Attention& a, const Places& places, const void* workspace) {
  struct Place {
    const char* name;
    const void* data;
  };
  std::vector<Place> all = {{"q", places.q}, {"k", places.k}, {"v", places.v}, {"o", places.o}, {"lse", places.lse}};
  if (a.backward) all.insert(all.end(), {{"do", places.grad}, {"dq", places.dq}, {"dk", places.dk}, {"dv", places.dv}});
  for (const auto& [name, data] : all)
    if (!data || !is_aligned(data, TENSOR_ALIGNMENT)) return text("cuDNN does not take ", name, " at its address; expected: a multiple of ", TENSOR_ALIGNMENT, " bytes");
  if (!is_aligned(workspace, WORKSPACE_ALIGNMENT)) return text("cuDNN does not take a workspace at its address; expected: a multiple of ", WORKSPACE_ALIGNMENT, " bytes");
  return "";
}

}  // namespace titan::cuda::cudnn
