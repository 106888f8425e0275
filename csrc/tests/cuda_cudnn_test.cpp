// cuDNN's attention as it is played on a CPU, against plain loops, and what it refuses. Errors that a caller could make are planted: a wrong stride, another
// mask, addresses and a workspace that are not aligned.
#include "../cuda/cudnn.h"
#include "../failure.h"
#include "test.h"

using namespace titan;
using namespace titan::test;
using namespace titan::cuda::cudnn;

namespace titan::cuda::host {
/// Work is done at once.
void (*defer)(void* stream, std::function<std::string()> launch) = nullptr;
}  // namespace titan::cuda::host

constexpr int64_t B = 2, T = 19, H = 4, G = 2, K = 8;

struct Tensors {
  alignas(256) char workspace[1 << 16];
  Array<bf16> q{{B, T, H, K}}, k{{B, T, G, K}}, v{k}, o{q}, grad{q}, dq{q}, dk{k}, dv{k};
  Array<float> lse{{B, H, T}};
  Tensors() { q.random(1), k.random(2), v.random(3), grad.random(4); }
  Places places() { return {q.data(), k.data(), v.data(), o.data(), lse.data(), grad.data(), dq.data(), dk.data(), dv.data()}; }
};

Strides strides_of(const Array<bf16>& x) { return {x.strides[0], x.strides[1], x.strides[2]}; }

Attention attention_of(const Tensors& x, bool backward) {
  const Strides q = strides_of(x.q), k = strides_of(x.k);
  return {B, T, T, H, G, K, 0.3, Mask::causal, backward, q, k, k, q, q, q, k, k};
}

/// The largest difference between what plans for such attention have given, and plain loops over causal attention of the tensors as they are.
double error_of(Tensors& x, Attention forward, Attention backward) {
  make_plan(forward, sizeof x.workspace)->run(x.places(), x.workspace, nullptr);
  make_plan(backward, sizeof x.workspace)->run(x.places(), x.workspace, nullptr);
  std::vector<double> dk(size_t(x.k.size())), dv(dk);
  double worst = 0;
  const auto compare = [&](double actual, double expected) { worst = std::fmax(worst, std::fabs(actual - expected)); };
  const auto at = [](int64_t b, int64_t t, int64_t h, int64_t heads, int64_t i) { return ((b * T + t) * heads + h) * K + i; };
  for (int64_t b = 0; b < B; b++)
    for (int64_t h = 0; h < H; h++)
      for (int64_t t = 0; t < T; t++) {
        const int64_t g = h / (H / G);
        double scores[T], total = 0, delta = 0, dq[K] = {}, o[K] = {};
        for (int64_t s = 0; s <= t; s++) {
          scores[s] = 0;
          for (int64_t i = 0; i < K; i++) scores[s] += 0.3 * double(x.q[at(b, t, h, H, i)]) * double(x.k[at(b, s, g, G, i)]);
          total += std::exp(scores[s]);
        }
        for (int64_t s = 0; s <= t; s++)
          for (int64_t i = 0; i < K; i++) o[i] += std::exp(scores[s]) / total * double(x.v[at(b, s, g, G, i)]);
        for (int64_t i = 0; i < K; i++) compare(double(x.o[at(b, t, h, H, i)]), o[i]), delta += o[i] * double(x.grad[at(b, t, h, H, i)]);
        compare(double(x.lse[(b * H + h) * T + t]), std::log(total));
        for (int64_t s = 0; s <= t; s++) {
          const double p = std::exp(scores[s]) / total;
          double dp = 0;
          for (int64_t i = 0; i < K; i++) dp += double(x.grad[at(b, t, h, H, i)]) * double(x.v[at(b, s, g, G, i)]);
          for (int64_t i = 0; i < K; i++) {
            const auto key = size_t(at(b, s, g, G, i));
            dq[i] += p * (dp - delta) * 0.3 * double(x.k[int64_t(key)]);
            dk[key] += p * (dp - delta) * 0.3 * double(x.q[at(b, t, h, H, i)]);
            dv[key] += p * double(x.grad[at(b, t, h, H, i)]);
          }
        }
        for (int64_t i = 0; i < K; i++) compare(double(x.dq[at(b, t, h, H, i)]), dq[i]);
      }
  for (int64_t i = 0; i < x.k.size(); i++) compare(double(x.dk[i]), dk[size_t(i)]), compare(double(x.dv[i]), dv[size_t(i)]);
  return worst;
}

/// What a call says that is refused.
template <class Call>
std::string refusal_of(Call call) {
  try {
    call();
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "nothing was refused";
}

#define EXPECT_SAYS(call, part)                                                                                        \
  do {                                                                                                                 \
    const std::string said = refusal_of([&] { call; });                                                                \
    if (said.find(part) == std::string::npos) {                                                                        \
      std::printf("%s:%d: it says \"%s\", expected \"%s\"\n", __FILE__, __LINE__, said.c_str(), part);                 \
      failures++;                                                                                                      \
    }                                                                                                                  \
  } while (0)

Tensors x;
const Attention forward = attention_of(x, false), backward = attention_of(x, true);
constexpr double BOUND = 0.06;

void results_are_those_of_plain_loops() { EXPECT(error_of(x, forward, backward) < BOUND); }

/// cuDNN cannot know that these are wrong: they are seen in the results.
void a_wrong_mask_or_stride_changes_results() {
  Attention unmasked = forward, turned = forward, unmasked_gradient = backward;
  unmasked.mask = unmasked_gradient.mask = Mask::none, std::swap(turned.q.token, turned.q.head);
  EXPECT(error_of(x, unmasked, backward) > 5 * BOUND);
  EXPECT(error_of(x, turned, backward) > 5 * BOUND);
  EXPECT(error_of(x, forward, unmasked_gradient) > 5 * BOUND);
}

void what_cudnn_does_not_take_is_refused() {
  const auto with = [&](auto change, bool is_backward = false) {
    Attention a = is_backward ? backward : forward;
    change(a);
    make_plan(a, sizeof x.workspace);
  };
  EXPECT_SAYS(with([](Attention& a) { a.k.token = 12; }), "a stride of 12 in k; expected: a multiple of 8 elements");
  EXPECT_SAYS(with([](Attention& a) { a.dv.head = 0; }, true), "a stride of 0 in dv");
  EXPECT_SAYS(with([](Attention& a) { a.K = 12; }), "heads of 12; expected: a multiple of 8, at most 128");
  EXPECT_SAYS(with([](Attention& a) { a.K = 136; }), "heads of 136");
  EXPECT_SAYS(with([](Attention& a) { a.G = 3; }), "4 query heads for 3 key heads; expected: a multiple");
  EXPECT_SAYS(with([](Attention& a) { a.T = a.S = 1; }, true), "no gradient for one query of one key");
  EXPECT_SAYS(make_plan(backward, 100), "workspace of 100 bytes; expected:");
}

void tensors_and_workspace_are_aligned() {
  const auto run_with = [&](auto change, int64_t offset = 0) {
    Places places = x.places();
    change(places);
    make_plan(backward, sizeof x.workspace)->run(places, x.workspace + offset, nullptr);
  };
  EXPECT_SAYS(run_with([](Places& p) { p.q = static_cast<const char*>(p.q) + 2; }), "does not take q at its address; expected: a multiple of 16 bytes");
  EXPECT_SAYS(run_with([](Places& p) { p.dk = nullptr; }), "does not take dk at its address");
  EXPECT_SAYS(run_with([](Places&) {}, 16), "a workspace at its address; expected: a multiple of 256 bytes");
}

int main() {
  results_are_those_of_plain_loops();
  a_wrong_mask_or_stride_changes_results();
  what_cudnn_does_not_take_is_refused();
  tensors_and_workspace_are_aligned();
  return finish("cuda_cudnn");
}
