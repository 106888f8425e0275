// The engine of GPUs on the played runtime: what it computes does not hang on the order in which streams go on, each of its waits is needed, and whichever
// call fails, one error tells it and nothing is left behind.
#include <algorithm>
#include <cmath>
#include <vector>

#include "../cuda/engine.h"
#include "../cuda/host/machine.h"
#include "../cuda/host/traced.h"
#include "../loaded_program.h"
#include "encode.h"
#include "test.h"

using namespace titan;
using namespace titan::test;
using namespace titan::cuda;

namespace {

constexpr uint32_t GEMM = 0, MAP = 1, COPY = 3, ACCUMULATE = 4, N = 16, BYTES = 4 * N;

/// Submits work on f32 operands of N elements, or of one element that is repeated.
template <class Body> void each(const Call& call, Body body) {
  const std::vector<Tensor> operands(call.operands, call.operands + call.num_operands);
  const bool adds = call.num_attributes == 1 && call.adds(call.attributes[0].i);
  host::submit(call.stream, [=] {
    for (uint32_t i = 0; i < N; i++) {
      const auto at = [&](size_t k) -> float& { return operands[k].as<float>()[operands[k].strides[0] ? i : 0]; };
      body(at, adds, operands.size());
    }
    return std::string();
  });
}

/// Of operands of products: how many there were, and how many of these were zero or no number from -1 to 1.
int64_t multiplied = 0, unlikely = 0;

template <class T> std::string look_at(const Tensor& matrix) {
  for (int64_t i = 0; i < matrix.dims[1] * matrix.dims[2]; i++) {
    const auto x = static_cast<float>(matrix.as<T>()[i]);
    multiplied++, unlikely += !(x != 0 && std::fabs(x) <= 1);
  }
  return "";
}

/// `map` with two inputs makes a * a + b, with one 2 * a; `copy` copies, `accumulate` adds.
const Backend& kernels_of_test() {
  static std::vector<Kernel> kernels(host::NUM_TRACED, Kernel{"none", [](const Call&) -> std::string { return "is no kernel of this test"; }, [](const Call&) {}});
  static const Backend backend = {"cuda", "sm_90", 0, kernels.data(), host::NUM_TRACED};
  const auto accept = [](const Call&) -> std::string { return ""; };
  kernels[GEMM] = {"gemm", accept, [](const Call& call) {
                     for (const Tensor& operand : {call[0], call[1]}) host::submit(call.stream, [=] { return operand.dtype == DType::bf16 ? look_at<bf16>(operand) : look_at<float>(operand); });
                   }};
  kernels[MAP] = {"map", accept, [](const Call& call) {
                    each(call, [](const auto& at, bool, size_t count) { at(count - 1) = count == 3 ? at(0) * at(0) + at(1) : 2 * at(0); });
                  }};
  kernels[COPY] = {"copy", accept, [](const Call& call) { each(call, [](const auto& at, bool, size_t) { at(1) = at(0); }); }};
  kernels[ACCUMULATE] = {"accumulate", accept, [](const Call& call) { each(call, [](const auto& at, bool adds, size_t) { at(1) = adds ? at(1) + at(0) : at(0); }); }};
  return host::traced(backend);
}

/// Section 0 squares its input, adds a number that all slots share, and keeps it in the slot; section 1 copies a slot to the output; section 2 adds its
/// input to a sum; section 3 doubles that into the output.
TestProgram program_of_test() {
  TestProgram program = {.threads = 1, .arena_bytes = 128 + 192 * 2, .input_bytes = BYTES, .output_bytes = BYTES,
                         .views = {{1, 0, 0, {N}, {1}}, {2, 0, 0, {N}, {1}}, {0, 0, 0, {N}, {0}}, {3, 0, 64, {N}, {1}}, {0, 0, 64, {N}, {1}}},
                         .steps = {{MAP, {0, 2, 3}, {2, 1, 1, 0, 0}}, {COPY, {3, 1}, {}}, {ACCUMULATE, {0, 4}, {2}}, {MAP, {4, 1}, {1, 1, 1, 0, 0}}},
                         .sections = {{0, 1}, {1, 1}, {2, 1}, {3, 1}}, .slots = 2, .slot_bytes = 192};
  program.target = "cuda";
  return program;
}

constexpr uint32_t MICROBATCHES = 5, RUNS = 4;
/// Threads that do not say which they use use the first.
constexpr uint32_t GPU = 1;

/// What a program leaves after some runs: outputs of the last, and the sum of each.
struct Outcome {
  float output[3 * N], sums[RUNS][N];
  bool operator==(const Outcome& other) const { return !std::memcmp(this, &other, sizeof *this); }
};

Outcome expected() {
  Outcome outcome{};
  for (uint32_t i = 0; i < N; i++) {
    const auto input = [&](uint32_t k) { return static_cast<float>(k * N + i); };
    for (uint32_t round = 0; round < RUNS; round++)
      for (uint32_t k = 0; k < MICROBATCHES; k++) outcome.sums[round][i] += input(2 + k) + (round + 1 == RUNS ? 0 : 7);
    outcome.output[i] = input(0) * input(0) + 0.5f, outcome.output[N + i] = input(1) * input(1) + 0.5f, outcome.output[2 * N + i] = 2 * outcome.sums[RUNS - 1][i];
  }
  return outcome;
}

/// Calls of the runtime until the program is destroyed.
int64_t calls_before_the_end = 0;

Outcome run(uint32_t flags = 0, titan_profile_record* records = nullptr) {
  const Bytes bytes = encode(program_of_test());
  auto device = std::make_shared<Device>(std::make_unique<CudaEngine>(kernels_of_test(), GPU, titan_device_options{1, 1, 0}));
  auto program = LoadedProgram::load(device, bytes.data.data(), bytes.data.size());
  int& gpu = host::gpu_of_thread();
  Outcome outcome{};
  alignas(8) float input[(2 + MICROBATCHES) * N], output[3 * N], sum[N];
  const float shared = 0.5f;
  for (int round = 0; round < static_cast<int>(RUNS); round++) {
    for (uint32_t i = 0; i < (2 + MICROBATCHES) * N; i++) input[i] = static_cast<float>(i) + (round + 1 == RUNS ? 0 : 7);  // the last run's count
    std::fill_n(output, 3 * N, -1.0f);
    gpu = 0;
    program->write(0, reinterpret_cast<const uint8_t*>(&shared), sizeof shared);
    std::vector<titan_action> actions;
    for (uint32_t slot = 0; slot < 2; slot++) actions.push_back({0, slot, flags, 0, slot * BYTES, 0});
    for (uint32_t k = 0; k < MICROBATCHES; k++) actions.push_back({2, 0, k ? flags : flags | FLAG_FIRST, 0, (2 + k) * BYTES, 0});
    for (uint32_t slot = 0; slot < 2; slot++) actions.push_back({1, slot, flags, 0, 0, slot * BYTES});
    actions.push_back({3, 0, flags, 0, 0, 2 * BYTES});
    if (records) program->profile(records, actions.size());
    program->run(actions.data(), actions.size(), {reinterpret_cast<const uint8_t*>(input), sizeof input, reinterpret_cast<uint8_t*>(output), sizeof output});
    std::copy_n(output, 3 * N, outcome.output);
    gpu = 0;
    program->read(64, reinterpret_cast<uint8_t*>(sum), sizeof sum);
    std::copy_n(sum, N, outcome.sums[round]);
  }
  calls_before_the_end = host::played().calls;
  gpu = 0;
  program.reset();
  gpu = 0;
  device.reset();
  return outcome;
}

/// Why something is refused, or nothing.
template <class Body> std::string refusal(Body body) {
  try {
    body();
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "";
}

void results_are_the_same_in_whatever_order_streams_go_on() {
  for (uint64_t seed = 1; seed <= 50; seed++) {
    host::play({.seed = seed});
    EXPECT(run() == expected());
    EXPECT(host::played().problem.empty() && host::left() == 0);
  }
}

void a_later_run_launches_graphs_alone() {
  host::play({});
  EXPECT(run() == expected());
  // Of each action the first run launches its kernel, and the second captures it; all others are graphs.
  const auto played = host::played();
  EXPECT(played.graph_launches > 0 && played.launches < played.graph_launches);
  setenv("TITAN_CUDA_GRAPHS", "off", 1);
  host::play({});
  EXPECT(run() == expected() && host::played().graph_launches == 0 && host::played().launches == RUNS * (MICROBATCHES + 5));
  unsetenv("TITAN_CUDA_GRAPHS");
  setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
  host::play({});
  EXPECT(run() == expected() && host::played().graph_launches == 0);
  unsetenv("CUDA_LAUNCH_BLOCKING");
  setenv("TITAN_CUDA_GRAPHS", "yes", 1);
  EXPECT(refusal([] { run(); }) == "TITAN_CUDA_GRAPHS is yes; expected: on or off");
  unsetenv("TITAN_CUDA_GRAPHS");
}

void each_wait_that_the_engine_makes_is_needed() {
  host::play({});
  run();
  const auto whole = host::played();
  EXPECT(whole.waits > 30 && whole.host_waits > 15);
  for (int64_t n = 0; n < whole.waits; n++) {
    host::play({.forgets_wait = n});
    EXPECT(refusal([] { run(); }).find("and nothing orders them") != std::string::npos);
  }
  int64_t unnoticed = 0;
  for (int64_t n = 0; n < whole.host_waits; n++) {
    host::play({.forgets_host_wait = n});
    Outcome outcome{};
    const bool refused = !refusal([&] { outcome = run(); }).empty();
    unnoticed += !refused && outcome == expected();
  }
  EXPECT(unnoticed == 3);  // those of the program's end, where nothing comes behind them
}

void whichever_call_fails_one_error_tells_it_and_nothing_is_left() {
  host::play({});
  run();
  const int64_t calls = host::played().calls;
  EXPECT(calls > 300 && calls_before_the_end < calls);
  for (int64_t n = 0; n < calls; n++) {
    host::play({.fails = n});
    const std::string why = refusal([] { EXPECT(run() == expected()); });
    const std::string call = host::played().last_call;
    const bool gives_back = call.find("Destroy") != std::string::npos || call.find("cudaFree") != std::string::npos;
    EXPECT(!call.empty() && why.empty() == (gives_back || n >= calls_before_the_end));
    EXPECT(why.empty() || why.find("; expected") != std::string::npos || why.rfind("the GPU failed in ", 0) == 0);
    EXPECT(host::left() == 0);
  }
}

void an_error_says_which_instruction_it_was() {
  host::play({});
  const int64_t calls = (run(), host::played().calls);
  int64_t launches = 0;
  for (int64_t n = 0; n < calls; n++) {
    host::play({.fails = n});
    try {
      run();
    } catch (const Failure& failure) {
      if (host::played().last_call != "a launch") continue;
      launches++;
      EXPECT(failure.error.instruction >= 0 && failure.error.section >= 0 && !std::strcmp(failure.error.scope, "norm!") && failure.error.kernel[0]);
    }
  }
  EXPECT(launches > 10);
}

void what_the_gpu_has_no_room_for_is_refused_before() {
  host::play({.memory_bytes = 600});
  EXPECT(refusal([] { run(); }) ==
         "the program takes 704 bytes of the GPU's memory, 512 of them for its arena; expected: at most 600, which are free; fix: a smaller batch or model, or more activation checkpointing");
  EXPECT(host::left() == 0);
}

void a_process_has_those_gpus_that_it_may_see() {
  host::play({});
  const auto open = [](uint32_t ordinal) { return refusal([&] { CudaEngine(kernels_of_test(), ordinal, titan_device_options{1, 1, 0}); }); };
  setenv("CUDA_VISIBLE_DEVICES", "4,2", 1);
  EXPECT(open(1) == "" && open(2) == "there is no GPU 2; expected: below 2, the number of those that this process sees; fix: fewer processes on this host, or CUDA_VISIBLE_DEVICES");
  setenv("CUDA_VISIBLE_DEVICES", "3", 1);
  EXPECT(open(0) == "" && open(5) == "");
  setenv("CUDA_VISIBLE_DEVICES", "", 1);
  EXPECT(open(0) == "there is no GPU that CUDA can use: none is visible; expected: an NVIDIA GPU with its driver (see nvidia-smi), which CUDA_VISIBLE_DEVICES does not hide; fix: --device cpu");
  unsetenv("CUDA_VISIBLE_DEVICES");
}

void times_are_taken_of_each_instruction_in_order() {
  host::play({});
  titan_profile_record records[MICROBATCHES + 5] = {};
  EXPECT(run(0, records) == expected() && host::played().graph_launches == 0);
  for (uint32_t i = 0; i < MICROBATCHES + 5; i++) {
    EXPECT(records[i].action == i && records[i].stream == 0 && records[i].begin_ns <= records[i].end_ns && records[i].begin_ns > 0);
    EXPECT(records[i].instruction == (i < 2 ? 0 : i < 2 + MICROBATCHES ? 2 : i < 4 + MICROBATCHES ? 1 : 3) && (!i || records[i - 1].end_ns <= records[i].begin_ns));
  }
}

void what_is_not_finite_is_told_where_that_is_asked_for() {
  const Bytes bytes = encode(program_of_test());
  host::play({});
  const auto device = std::make_shared<Device>(std::make_unique<CudaEngine>(kernels_of_test(), 0, titan_device_options{1, 1, 0}));
  const auto program = LoadedProgram::load(device, bytes.data.data(), bytes.data.size());
  alignas(8) float input[N] = {};
  input[5] = INFINITY;
  for (const uint32_t flags : {0u, uint32_t{FLAG_CHECK_FINITE}}) {
    const titan_action action = {2, 0, flags, 0, 0, 0};
    const std::string why = refusal([&] { program->run(&action, 1, {reinterpret_cast<const uint8_t*>(input), sizeof input, nullptr, 0}); });
    EXPECT(why == (flags ? "instruction 2 (accumulate in norm!) made output y infinite or NaN, first at element 5" : ""));
  }
}

void products_are_measured_with_numbers_that_differ() {
  setenv("TITAN_CUDA_PRODUCTS", "own", 1);
  host::play({});
  auto engine = std::make_unique<CudaEngine>(kernels_of_test(), GPU, titan_device_options{1, 1, 0});
  for (const titan_measure measure : {TITAN_MEASURE_PRODUCT, TITAN_MEASURE_PRODUCT_BF16}) {
    multiplied = unlikely = 0;
    EXPECT(engine->measure(measure, 16, 1) > 0 && multiplied > 0 && unlikely == 0);
  }
  unsetenv("TITAN_CUDA_PRODUCTS");
  host::gpu_of_thread() = 0;
  engine.reset();  // with the workspace of products
  EXPECT(host::played().problem.empty() && host::left() == 0);
}

}  // namespace

int main() {
  results_are_the_same_in_whatever_order_streams_go_on();
  a_later_run_launches_graphs_alone();
  each_wait_that_the_engine_makes_is_needed();
  whichever_call_fails_one_error_tells_it_and_nothing_is_left();
  an_error_says_which_instruction_it_was();
  what_the_gpu_has_no_room_for_is_refused_before();
  a_process_has_those_gpus_that_it_may_see();
  times_are_taken_of_each_instruction_in_order();
  what_is_not_finite_is_told_where_that_is_asked_for();
  products_are_measured_with_numbers_that_differ();
  return finish("cuda_engine");
}
