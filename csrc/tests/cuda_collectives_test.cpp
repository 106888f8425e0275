// Collectives in the engine of GPUs, on the played runtime: each waits for what it needs and no more, whatever fails ends the run with one error, and other
// ranks are never waited for without an end. The other rank is a mirror: whatever this one gives, it gives too.
#include <algorithm>
#include <cstring>
#include <vector>

#include "../comm/world.h"
#include "../cuda/cuda_program.h"
#include "../cuda/host/machine.h"
#include "../cuda/host/traced.h"
#include "encode.h"
#include "test.h"

using namespace titan;
using namespace titan::test;
using namespace titan::cuda;

namespace {

constexpr uint32_t COPY = 3, ACCUMULATE = 4, N = 16, BYTES = 4 * N, ALL_REDUCE = host::NUM_TRACED + titan_comm_all_reduce;

/// What the exchange between GPUs is to be like, and what became of it.
struct Other {
  int64_t fails_at = -1;      // the launch of this number is refused
  int64_t never_comes = -1;   // to the collective of this number
  std::string error = "";     // of what is under way
  int64_t launches = 0, aborts = 0;
} other;

/// Sums over two ranks that have the same.
class Mirror : public Collectives {
 public:
  void launch(const comm::Collective& collective, size_t group, cudaStream_t stream) override {
    EXPECT(group == 0 && collective.ranks == std::vector<int>({0, 1}));
    const int64_t number = other.launches++;
    if (number == other.fails_at) throw Failure(TITAN_STATUS_COMMUNICATION, "NCCL refuses all_reduce; expected: another answer");
    const auto [in, out, count] = std::tuple(static_cast<const float*>(collective.tensors[0].in), static_cast<float*>(collective.tensors[0].out), collective.tensors[0].chunk);
    const auto sum = [=] {
      for (uint64_t i = 0; i < count && !other.aborts; i++) out[i] = in[i] + in[i];
      return std::string();
    };
    const auto come = [=] { return number != other.never_comes || other.aborts; };
    check(host::put(stream, {"all_reduce", sum, {host::touch_of(in, 4 * count, false), host::touch_of(out, 4 * count, true)}, nullptr, nullptr, 0, come}), "all_reduce");
  }
  std::string error() override { return other.error; }
  void abort() noexcept override { other.aborts++; }
};

/// Two ranks, of which this is the first. Where the other never comes, it has ended by the tenth look at it.
class Pair : public comm::Ranks {
 public:
  int64_t begun = 0, done = 0, looks = 0;
  std::string gave_up;

  int rank() const override { return 0; }
  int size() const override { return 2; }
  void gather(const void*, void*, uint64_t) override {}
  std::vector<comm::Group*> agree(const std::vector<comm::Collective>& collectives) override { return std::vector<comm::Group*>(collectives.size(), nullptr); }
  void launched(comm::Launched& launched) override { launched.number = static_cast<uint64_t>(begun++); }
  void ended(const comm::Launched& launched) override { EXPECT(launched.number == static_cast<uint64_t>(done++)); }
  void check(const comm::Launched& launched, uint64_t, bool, const std::string& error) override {
    if (!error.empty()) throw Failure(TITAN_STATUS_COMMUNICATION, text("all_reduce ", launched.number, " failed: ", error));
    if (other.never_comes >= 0 && ++looks == 10) throw Failure(TITAN_STATUS_COMMUNICATION, text("all_reduce ", launched.number, " cannot end: rank 1 has ended without a word"));
  }
  void check(const char*, uint64_t) override {}
  void give_up(const char* why) noexcept override { gave_up = why; }
};

template <class Body> void each(const Call& call, Body body) {
  const std::vector<Tensor> operands(call.operands, call.operands + call.num_operands);
  const bool adds = call.num_attributes == 1 && call.adds(call.attributes[0].i);
  host::submit(call.stream, [=] {
    for (uint32_t i = 0; i < N; i++) body(operands[0].as<float>()[i], operands[1].as<float>()[i], adds);
    return std::string();
  });
}

const Backend& kernels_of_test() {
  static std::vector<Kernel> kernels(host::NUM_TRACED, Kernel{"none", [](const Call&) -> std::string { return "is no kernel of this test"; }, [](const Call&) {}});
  static const Backend backend = {"cuda", "sm_90", 0, kernels.data(), host::NUM_TRACED};
  const auto accept = [](const Call&) -> std::string { return ""; };
  kernels[COPY] = {"copy", accept, [](const Call& call) { each(call, [](float x, float& y, bool) { y = x; }); }};
  kernels[ACCUMULATE] = {"accumulate", accept, [](const Call& call) { each(call, [](float x, float& y, bool adds) { y = adds ? y + x : x; }); }};
  return host::traced(backend);
}

constexpr uint64_t in_slot(uint64_t instruction) { return instruction | uint64_t{1} << 32; }

/// A step: section 0 reduces its input, copies it meanwhile, adds what was reduced to a sum, and in the last microbatch reduces that; section 1 has the sum
/// put out.
TestProgram step() {
  TestProgram program = {.threads = 1, .arena_bytes = 4 * 256, .input_bytes = BYTES, .output_bytes = BYTES,
                         .views = {{1, 0, 0, {N}, {1}}, {2, 0, 0, {N}, {1}}, {0, 0, 0, {N}, {1}}, {0, 0, 256, {N}, {1}}, {0, 0, 512, {N}, {1}}, {0, 0, 768, {N}, {1}}},
                         .steps = {{COPY, {0, 2}, {}}, {ALL_REDUCE, {2, 3}, {1, 2, 0, 1, 0, 0}, 1, {0}}, {COPY, {0, 4}, {}}, {ACCUMULATE, {3, 5}, {2}, 0, {1}},
                                   {ALL_REDUCE, {5, 5}, {1, 2, 0, 1, 0, 1}, 1, {3}}, {COPY, {5, 1}, {}, 0, {4}}},
                         .sections = {{0, 5}, {5, 1}}};
  program.target = "cuda";
  return program;
}

/// Two stages: section 0 makes what a slot sends, section 1 sends it, section 2 takes what has come.
TestProgram stages() {
  TestProgram program = {.threads = 1, .arena_bytes = 2 * 512, .input_bytes = BYTES, .output_bytes = BYTES,
                         .views = {{1, 0, 0, {N}, {1}}, {2, 0, 0, {N}, {1}}, {3, 0, 0, {N}, {1}}, {3, 0, 256, {N}, {1}}},
                         .steps = {{COPY, {0, 2}, {}, 0, {in_slot(1)}}, {ALL_REDUCE, {2, 3}, {1, 2, 0, 1, 0, 0}, 1, {in_slot(0), in_slot(2)}}, {COPY, {3, 1}, {}, 0, {in_slot(1)}}},
                         .sections = {{0, 1}, {1, 1}, {2, 1}}, .slots = 2, .slot_bytes = 512};
  program.target = "cuda";
  return program;
}

constexpr uint32_t MICROBATCHES = 3, RUNS = 3;

std::vector<titan_action> actions_of(bool in_stages, uint32_t flags) {
  std::vector<titan_action> actions;
  for (uint32_t k = 0; k < MICROBATCHES && !in_stages; k++)
    actions.push_back({0, 0, flags | (k ? 0u : FLAG_FIRST) | (k + 1 < MICROBATCHES ? 0u : FLAG_LAST), 0, k * BYTES, 0});
  if (!in_stages) actions.push_back({1, 0, flags, 0, 0, 0});
  if (!in_stages) return actions;
  // The third takes the slot of the first, before anybody has taken what came there.
  for (const auto& [section, k] : {std::pair(0u, 0u), {1, 0}, {0, 1}, {1, 1}, {0, 2}, {2, 1}, {2, 0}, {1, 2}, {2, 2}})
    actions.push_back({section, k % 2, flags, k % 2, k * BYTES, k * BYTES});
  return actions;
}

using Output = std::array<float, MICROBATCHES * N>;

Output expected(bool in_stages) {
  Output output;
  output.fill(-1);
  for (uint32_t i = 0; i < N; i++)
    for (uint32_t k = 0; k < MICROBATCHES; k++) {
      const auto input = static_cast<float>(k * N + i);
      if (in_stages) output[k * N + i] = 2 * input;
      else output[i] = (k ? output[i] : 0) + 4 * input;
    }
  return output;
}

int64_t calls_before_the_end = 0;

struct Ran {
  Output output;
  Pair pair;
  titan_profile_record records[5 * MICROBATCHES + 1] = {};
};

/// The outputs of the last of some runs.
void run(Ran& ran, bool in_stages, uint32_t flags = 0, bool records = false) {
  const Bytes bytes = encode(in_stages ? stages() : step());
  const CudaEngine engine(kernels_of_test(), 0, titan_device_options{1, 1, 0});
  Program program = load_program(engine.backend, 1, bytes.data.data(), bytes.data.size());
  CudaProgram loaded(engine, program, &ran.pair);
  Access access;
  alignas(8) float input[MICROBATCHES * N];
  for (int round = 0; round < static_cast<int>(RUNS); round++) {
    for (uint32_t i = 0; i < MICROBATCHES * N; i++) input[i] = static_cast<float>(i) + (round + 1 == RUNS ? 0 : 7);
    ran.output.fill(-1);
    const auto actions = actions_of(in_stages, flags);
    const Host host = {reinterpret_cast<const uint8_t*>(input), sizeof input, reinterpret_cast<uint8_t*>(ran.output.data()), sizeof ran.output};
    loaded.run({actions.data(), actions.size(), host, records ? ran.records : nullptr, access});
  }
  calls_before_the_end = host::played().calls;
}

/// How the runs failed.
Failure failure_of(Ran& ran, bool in_stages) {
  try {
    run(ran, in_stages);
  } catch (const Failure& failure) {
    return failure;
  }
  return Failure(TITAN_STATUS_OK, "");
}

void play(const host::Play& play, const Other& as = {}) {
  other = as;
  host::play(play);
}

void results_are_the_same_in_whatever_order_streams_go_on() {
  for (const bool in_stages : {false, true})
    for (const char* graphs : {"on", "off"}) {
      setenv("TITAN_CUDA_GRAPHS", graphs, 1);
      for (uint64_t seed = 1; seed <= 25; seed++) {
        play({.seed = seed});
        Ran ran;
        run(ran, in_stages);
        EXPECT(ran.output == expected(in_stages));
        EXPECT(host::played().problem.empty() && host::left() == 0 && other.aborts == 0);
        // In a step, the last microbatch has one more.
        EXPECT(ran.pair.begun == RUNS * (MICROBATCHES + !in_stages) && ran.pair.done == ran.pair.begun);
      }
    }
  unsetenv("TITAN_CUDA_GRAPHS");
}

/// A step's collectives are launched by the first run, and captured by the second, or, those of a middle microbatch, within the first.
void the_collectives_of_a_step_are_in_its_graphs_and_those_between_stages_are_not() {
  play({});
  Ran step, stages;
  run(step, false);
  EXPECT(other.launches == 2 * (MICROBATCHES + 1) && host::played().graph_launches > 0);
  play({});
  run(stages, true);
  EXPECT(other.launches == RUNS * MICROBATCHES && host::played().graph_launches > 0);
}

/// Under some order at least: in another the host may have seen by chance that what was to be waited for had ended.
bool is_noticed(const host::Play& forgetful, bool in_stages) {
  for (uint64_t seed = 1; seed <= 32; seed++) {
    host::Play as = forgetful;
    as.seed = seed;
    play(as, Other());
    Ran ran;
    if (failure_of(ran, in_stages).error.status != TITAN_STATUS_OK || ran.output != expected(in_stages)) return true;
  }
  return false;
}

void each_wait_between_streams_is_needed() {
  for (const bool in_stages : {false, true})
    for (const bool graphs : {false, true}) {
      setenv("TITAN_CUDA_GRAPHS", graphs ? "on" : "off", 1);
      play({});
      Ran whole;
      run(whole, in_stages);
      const int64_t waits = host::played().waits;
      int64_t unnoticed = 0;
      for (int64_t n = 0; n < waits; n++) unnoticed += !is_noticed({.forgets_wait = n}, in_stages);
      // Per run, between stages: what comes to slot 0, which its next use has waited for; the third microbatch's sending, for kernels that the wait behind it
      // knows too; and the run's end for the last, which kernels have waited for. In a step: the two collectives that are left out, and the run's end. In
      // graphs these two, once, and that collectives begin with the graph, as the first of them waits for a kernel.
      EXPECT(waits > 35 && unnoticed == (in_stages || !graphs ? 3 * RUNS : 3 + 5));
    }
  unsetenv("TITAN_CUDA_GRAPHS");
}

void whichever_call_fails_one_error_tells_it_and_nothing_is_left() {
  for (const bool in_stages : {false, true}) {
    play({});
    Ran whole;
    run(whole, in_stages);
    const int64_t calls = host::played().calls, launches = other.launches;
    EXPECT(calls > 200);
    for (int64_t n = 0; n < calls; n++) {
      play({.fails = n});
      Ran ran;
      const Failure failure = failure_of(ran, in_stages);
      const std::string call = host::played().last_call;
      const bool gives_back = call.find("Destroy") != std::string::npos || call.find("cudaFree") != std::string::npos || call.empty();
      EXPECT((failure.error.status == TITAN_STATUS_OK) == (gives_back || n >= calls_before_the_end));
      if (failure.error.status != TITAN_STATUS_OK) EXPECT(!std::strncmp(failure.what(), "the GPU failed in ", 18) || std::strstr(failure.what(), "; expected: "));
      // Who has begun to run tells the others.
      if (failure.error.status != TITAN_STATUS_OK && ran.pair.begun) EXPECT(ran.pair.gave_up == failure.what() && other.aborts == 1);
      EXPECT(host::left() == 0);
    }
    for (int64_t n = 0; n < launches; n++) {
      play({}, {.fails_at = n});
      Ran ran;
      const Failure failure = failure_of(ran, in_stages);
      EXPECT(!std::strcmp(failure.what(), "NCCL refuses all_reduce; expected: another answer") && failure.error.instruction > 0 && !std::strcmp(failure.error.scope, "norm!"));
      EXPECT(ran.pair.gave_up == failure.what() && other.aborts == 1 && host::left() == 0);
    }
  }
}

/// In the first run, when each is launched by itself, and in a later one, when most are in graphs.
void a_rank_that_never_comes_ends_the_run_with_the_collective_that_it_is_missed_in() {
  for (const bool in_stages : {false, true})
    for (int64_t n = 0; n < MICROBATCHES; n++) {
      play({}, {.never_comes = n});
      Ran ran;
      const Failure failure = failure_of(ran, in_stages);
      EXPECT(text("all_reduce ", n, " cannot end: rank 1 has ended without a word") == failure.what());
      EXPECT(failure.error.instruction == 1 && !std::strcmp(failure.error.kernel, "all_reduce") && !std::strcmp(failure.error.scope, "norm!"));
      EXPECT(other.aborts == 1 && ran.pair.gave_up == failure.what() && host::left() == 0);
    }
}

void what_fails_on_the_way_between_gpus_is_told_with_the_collective() {
  play({}, {.never_comes = 0, .error = "unhandled system error"});
  Ran ran;
  EXPECT(!std::strcmp(failure_of(ran, false).what(), "all_reduce 0 failed: unhandled system error") && ran.pair.looks == 0 && other.aborts == 1);
}

void times_are_taken_of_collectives_on_their_own_stream() {
  play({});
  Ran ran;
  run(ran, false, 0, true);
  for (uint32_t k = 0; k < MICROBATCHES; k++)
    for (uint32_t i = 0; i < 5; i++) {
      const auto& record = ran.records[5 * k + i];
      EXPECT(record.action == k && record.instruction == i && record.stream == (i == 1 || i == 4) && record.begin_ns <= record.end_ns && record.begin_ns > 0);
    }
  EXPECT(ran.records[0].end_ns <= ran.records[1].begin_ns && ran.records[1].end_ns <= ran.records[3].begin_ns && ran.output == expected(false));
}

void what_a_collective_makes_is_checked_where_that_is_asked_for() {
  for (const bool in_stages : {false, true}) {
    play({});
    Ran ran;
    run(ran, in_stages, FLAG_CHECK_FINITE);
    EXPECT(ran.output == expected(in_stages) && host::played().graph_launches == 0);
  }
}

}  // namespace

namespace titan::cuda {

Arena make_exchanged_arena(uint64_t bytes) {
  void* memory = nullptr;
  TITAN_CUDA_CHECK(cudaMalloc(&memory, bytes));
  return {memory, [](void* arena) { (void)cudaFree(arena); }};
}

std::unique_ptr<Collectives> open_collectives(comm::Ranks& ranks, const Exchange& exchange) {
  EXPECT(ranks.size() == 2 && exchange.groups.size() == 1 && exchange.arena_bytes > 0);
  return std::make_unique<Mirror>();
}

}  // namespace titan::cuda

int main() {
  results_are_the_same_in_whatever_order_streams_go_on();
  the_collectives_of_a_step_are_in_its_graphs_and_those_between_stages_are_not();
  each_wait_between_streams_is_needed();
  whichever_call_fails_one_error_tells_it_and_nothing_is_left();
  a_rank_that_never_comes_ends_the_run_with_the_collective_that_it_is_missed_in();
  what_fails_on_the_way_between_gpus_is_told_with_the_collective();
  times_are_taken_of_collectives_on_their_own_stream();
  what_a_collective_makes_is_checked_where_that_is_asked_for();
  return finish("cuda_collectives");
}
