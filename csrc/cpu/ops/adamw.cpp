// AdamW over n parameters at once (p*, m*, v*, g* of any shapes, each one dense run), with lr, step (1, 2, ...) and the gradient's scale as scalars:
//   g' = scale g,  m' = beta1 m + (1 - beta1) g',  v' = beta2 v + (1 - beta2) g'^2
//   p' = (1 - lr weight_decay) p - lr / (1 - beta1^step) m' / (sqrt(v' / (1 - beta2^step)) + eps)
// Memory-bound: 28 bytes per f32 parameter, in place or not. All parameters form one range of elements, cut evenly over the threads,
// so that many small tensors cost no more than a large one. When scale is not finite (a diverged norm), p, m and v keep their values.
// Each p, m, v and g may be bf16. Results are rounded to nearest: an update below half a unit in the last place of a bf16 p, m or v is lost.
#include <algorithm>

#include "../kernels.h"
#include "../parallel.h"
#include "../storage.h"

namespace titan::cpu::inline TITAN_LEVEL {
namespace {

template <class real>
struct Step {
  real scale, beta1, beta2, decay, rate, root, eps;  // root: 1 / sqrt(1 - beta2^step)
};

template <class S>
void update(const Step<computed<S>>& s, Row<S> p, Row<S> m, Row<S> v, Row<S> g, Row<S> p2, Row<S> m2, Row<S> v2, int64_t n) {
  using real = computed<S>;
  for_lanes<real>(n, [&](int64_t i, int64_t lanes) {
    const vec<real> gradient = g.load(i, lanes) * s.scale;
    const vec<real> mean = m.load(i, lanes) * s.beta1 + gradient * (1 - s.beta1);
    const vec<real> square = v.load(i, lanes) * s.beta2 + gradient * gradient * (1 - s.beta2);
    p2.store(i, p.load(i, lanes) * s.decay - s.rate * mean / (sqrt_lanes<real>(square) * s.root + s.eps), lanes);
    m2.store(i, mean, lanes);
    v2.store(i, square, lanes);
  });
}

template <class S>
void adamw(const Call& call) {
  using real = computed<S>;
  const int n = int(call.attributes[0].i);
  const double beta1 = call.attributes[1].f, beta2 = call.attributes[2].f, eps = call.attributes[3].f, weight_decay = call.attributes[4].f;
  const double lr = double(*call[4 * n].as<real>()), step = double(*call[4 * n + 1].as<real>());
  const real scale = *call[4 * n + 2].as<real>();
  const Step<real> s{scale, real(beta1), real(beta2), real(1 - lr * weight_decay), real(lr / (1 - std::pow(beta1, step))), real(1 / std::sqrt(1 - std::pow(beta2, step))), real(eps)};
  int64_t total = 0;
  for (int k = 0; k < n; k++) total += elements(call[k]);
  constexpr int64_t LINE = 64 / sizeof(real);
  const int64_t lines = (total + LINE - 1) / LINE;
  for_each(call.threads, call.threads, [&](int64_t part) {
    const int64_t begin = lines * part / call.threads * LINE, end = std::min(total, lines * (part + 1) / call.threads * LINE);
    int64_t first = 0;  // of parameter k in the whole range
    for (int k = 0; k < n && first < end; first += elements(call[k]), k++) {
      const int64_t from = std::max(begin - first, int64_t(0)), count = std::min(end - first, elements(call[k])) - from;
      if (count <= 0) continue;
      auto at = [&](int operand) { return Row<S>(call[operand], from); };
      const int out = 4 * n + 3;
      if (std::isfinite(scale)) update<S>(s, at(k), at(n + k), at(2 * n + k), at(3 * n + k), at(out + k), at(out + n + k), at(out + 2 * n + k), count);
      else
        for (int group = 0; group < 3; group++) for_lanes<real>(count, [&](int64_t i, int64_t lanes) { at(out + group * n + k).store(i, at(group * n + k).load(i, lanes), lanes); });
    }
  });
}

}  // namespace

void run_adamw(const Call& call) {
  with_storage(call, [&](auto storage) { adamw<decltype(storage)>(call); });
}

}  // namespace titan::cpu::inline TITAN_LEVEL

#ifdef TITAN_CHECKS
namespace titan::cpu {
std::string check_adamw(const Call& call) {
  const int64_t n = call.num_attributes ? call.attributes[0].i : 0;
  if (n < 1 || call.num_operands != 7 * n + 3) return "n is " + std::to_string(n) + " with " + std::to_string(call.num_operands) + " operands; expected: n >= 1 and 7 n + 3 operands";
  std::vector<std::string> names;
  auto group = [&](const char* name) {
    for (int64_t k = 0; k < n; k++) names.push_back(name + std::string("[") + std::to_string(k) + "]");
  };
  for (const char* name : {"p", "m", "v", "g"}) group(name);
  names.insert(names.end(), {"lr", "step", "scale"});
  for (const char* name : {"new p", "new m", "new v"}) group(name);
  Check check(call, names, 5);
  const DType real = check.real_or_bf16(0);
  for (int64_t i = 0; i < call.num_operands; i++) {
    if (i >= 4 * n && i < 4 * n + 3) {
      check.operand(int(i), real, {});
      continue;
    }
    check.require(widened(call[int(i)].dtype) == real, names[size_t(i)] + " is " + name_of(call[int(i)].dtype) + "; expected: " + name_of(real));
    const Tensor &p = call[int((i < 4 * n ? i : i - 3) % n)], &t = call[int(i)];
    check.require(elements(t) == elements(p), names[size_t(i)] + " has " + std::to_string(elements(t)) + " elements; expected: " + std::to_string(elements(p)) + " as its parameter");
    check.dense(int(i));
  }
  for (int64_t k = 0; k < 3 * n; k++) check.in_place(int(k), int(4 * n + 3 + k));
  return check.error();
}
}  // namespace titan::cpu
#endif
