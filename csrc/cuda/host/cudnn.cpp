// cuDNN's attention, played on a CPU: what sdpa and sdpa_backward compute, by plain loops, with operands and probabilities rounded to bf16 where tensor
// cores take them and sums in f64. It refuses what cuDNN does, uses its workspace, and puts its work into the stream.
#include "../cudnn.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "../../backend.h"
#include "../../failure.h"
#include "emulator.h"

namespace titan::cuda::cudnn {
namespace {

/// It has room for dq in f32, and as cuDNN has a sum for each query.
uint64_t workspace_bytes_of(const Attention& a) { return static_cast<uint64_t>(a.backward ? 4 * a.B * a.H * a.T * (a.K + 1) : 0); }

double rounded(double x) { return static_cast<double>(bf16(static_cast<float>(x))); }

/// A head of a token, from memory.
bf16* head(const void* data, const Strides& at, int64_t b, int64_t token, int64_t h) {
  return static_cast<bf16*>(const_cast<void*>(data)) + b * at.batch + token * at.token + h * at.head;
}
double dot(const bf16* a, const bf16* b, int64_t K) {
  double sum = 0;
  for (int64_t i = 0; i < K; i++) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}
void put(bf16* to, const double* from, int64_t K) {
  for (int64_t i = 0; i < K; i++) to[i] = bf16(static_cast<float>(from[i]));
}
void add(double* to, double factor, const bf16* from, int64_t K) {
  for (int64_t i = 0; i < K; i++) to[i] += factor * static_cast<double>(from[i]);
}
int64_t keys_of(const Attention& a, int64_t t) { return a.mask == Mask::causal ? std::min(t + 1, a.S) : a.S; }

void forward(const Attention& a, const Places& p) {
  std::vector<double> scores(static_cast<size_t>(a.S)), sums(static_cast<size_t>(a.K));
  for (int64_t b = 0; b < a.B; b++)
    for (int64_t h = 0; h < a.H; h++)
      for (int64_t t = 0; t < a.T; t++) {
        const int64_t g = h / (a.H / a.G), keys = keys_of(a, t);
        double most = -std::numeric_limits<double>::infinity(), total = 0;
        for (int64_t s = 0; s < keys; s++) most = std::max(most, scores[static_cast<size_t>(s)] = a.scale * dot(head(p.q, a.q, b, t, h), head(p.k, a.k, b, s, g), a.K));
        std::fill(sums.begin(), sums.end(), 0.0);
        for (int64_t s = 0; s < keys; s++) {
          const double power = std::exp(scores[static_cast<size_t>(s)] - most);
          total += power;
          add(sums.data(), rounded(power), head(p.v, a.v, b, s, g), a.K);
        }
        for (double& sum : sums) sum /= total;
        put(head(p.o, a.o, b, t, h), sums.data(), a.K);
        static_cast<float*>(p.lse)[(b * a.H + h) * a.T + t] = static_cast<float>(most + std::log(total));
      }
}

void backward(const Attention& a, const Places& p) {
  const auto K = static_cast<size_t>(a.K), keys_values = static_cast<size_t>(a.S) * K;
  std::vector<double> dq(K), dk(keys_values), dv(keys_values);
  for (int64_t b = 0; b < a.B; b++)
    for (int64_t g = 0; g < a.G; g++) {
      std::fill(dk.begin(), dk.end(), 0.0), std::fill(dv.begin(), dv.end(), 0.0);
      for (int64_t h = g * (a.H / a.G); h < (g + 1) * (a.H / a.G); h++)
        for (int64_t t = 0; t < a.T; t++) {
          const bf16 *q = head(p.q, a.q, b, t, h), *grad = head(p.grad, a.grad, b, t, h);
          const double lse = static_cast<double>(static_cast<float*>(p.lse)[(b * a.H + h) * a.T + t]), delta = dot(grad, head(p.o, a.o, b, t, h), a.K);
          std::fill(dq.begin(), dq.end(), 0.0);
          for (int64_t s = 0; s < keys_of(a, t); s++) {
            const bf16 *k = head(p.k, a.k, b, s, g), *v = head(p.v, a.v, b, s, g);
            const double probability = std::exp(a.scale * dot(q, k, a.K) - lse), ds = rounded(probability * (dot(grad, v, a.K) - delta) * a.scale);
            add(dq.data(), ds, k, a.K);
            add(dk.data() + static_cast<size_t>(s) * K, ds, q, a.K);
            add(dv.data() + static_cast<size_t>(s) * K, rounded(probability), grad, a.K);
          }
          put(head(p.dq, a.dq, b, t, h), dq.data(), a.K);
        }
      for (int64_t s = 0; s < a.S; s++) {
        put(head(p.dk, a.dk, b, s, g), dk.data() + static_cast<size_t>(s) * K, a.K);
        put(head(p.dv, a.dv, b, s, g), dv.data() + static_cast<size_t>(s) * K, a.K);
      }
    }
}

class PlayedPlan : public Plan {
 public:
  explicit PlayedPlan(const Attention& attention) : attention_(attention) {}
  uint64_t workspace_bytes() const override { return workspace_bytes_of(attention_); }
  void run(const Places& places, void* workspace, void* stream) const override {
    if (const std::string error = refusal(attention_, places, workspace); !error.empty()) throw Failure(TITAN_STATUS_INTERNAL, error);
    const auto work = [a = attention_, places, workspace] {
      if (const uint64_t bytes = workspace_bytes_of(a)) std::memset(workspace, 0, bytes);
      a.backward ? backward(a, places) : forward(a, places);
      return std::string();
    };
    if (host::defer) host::defer(stream, work);
    else work();
  }

 private:
  const Attention attention_;
};

}  // namespace

std::unique_ptr<Plan> make_plan(const Attention& attention, uint64_t most_workspace_bytes) {
  if (const std::string error = refusal(attention); !error.empty()) throw Failure(TITAN_STATUS_INVALID_PROGRAM, error);
  if (const uint64_t needed = workspace_bytes_of(attention); needed > most_workspace_bytes)
    throw Failure(TITAN_STATUS_INVALID_PROGRAM, text("cuDNN has no plan for this attention with a workspace of ", most_workspace_bytes, " bytes; expected: ", needed));
  return std::make_unique<PlayedPlan>(attention);
}

int current_gpu() { return 0; }

}  // namespace titan::cuda::cudnn
