// The executor behind the C interface: calls from several threads take their turns, run to their end whatever happens to their handles, and
// are recorded where that is asked for. Programs have one OpenMP thread, so that the thread sanitizer, which knows nothing of libgomp's
// barriers, sees everything that is shared here and nothing else.
#include <algorithm>
#include <atomic>
#include <thread>

#include "../titan.h"
#include "encode.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

constexpr int CALLERS = 4, ROUNDS = 50, N = 64;
constexpr uint32_t COPY = 3, ACCUMULATE = 4;

/// Section 0 adds the input to a sum in the arena (FIRST: starts it anew), section 1 copies the sum to the output.
Bytes summing() {
  return encode({
      .threads = 1,
      .arena_bytes = 4 * N,
      .input_bytes = 4 * N,
      .output_bytes = 4 * N,
      .views = {{1, 0, 0, {N}, {1}}, {0, 0, 0, {N}, {1}}, {2, 0, 0, {N}, {1}}},
      .steps = {{ACCUMULATE, {0, 1}, {2}}, {COPY, {1, 2}, {}}},
      .sections = {{0, 1}, {1, 1}},
  });
}

titan_action action(uint32_t section, uint32_t flags = 0) { return {section, 0, flags, 0, 0, 0}; }

struct Host {
  alignas(8) float input[N], output[N];
  explicit Host(float value = 1) { std::fill_n(input, N, value); }
  int32_t run(uint64_t program, std::initializer_list<titan_action> actions, titan_error* error = nullptr) {
    return titan_program_run(program, actions.begin(), actions.size(), reinterpret_cast<const uint8_t*>(input), sizeof input, reinterpret_cast<uint8_t*>(output),
                             sizeof output, error);
  }
};

struct Opened {
  uint64_t device = 0, program = 0;
  Opened() {
    const titan_device_options options = {1, 1, 0};
    EXPECT(titan_device_open(TITAN_DEVICE_CPU, 0, &options, &device, nullptr) == TITAN_STATUS_OK);
    program = create();
  }
  ~Opened() {
    titan_program_destroy(program, nullptr);
    titan_device_close(device, nullptr);
  }
  uint64_t create() const {
    const Bytes bytes = summing();
    uint64_t created = 0;
    EXPECT(titan_program_create(device, bytes.data.data(), bytes.data.size(), &created, nullptr) == TITAN_STATUS_OK);
    return created;
  }
};

/// `work(caller)` on several threads at once.
template <class Work> void at_once(Work work) {
  std::vector<std::thread> threads;
  for (int caller = 0; caller < CALLERS; caller++) threads.emplace_back(work, caller);
  for (auto& thread : threads) thread.join();
}

void calls_take_turns() {
  Opened opened;
  Host zero(0), last;
  EXPECT(zero.run(opened.program, {action(0, TITAN_FLAG_FIRST)}) == TITAN_STATUS_OK);
  std::atomic<int> ok{0};
  at_once([&](int) {
    Host host;
    for (int round = 0; round < ROUNDS; round++) ok += host.run(opened.program, {action(0), action(0), action(1)}) == TITAN_STATUS_OK;
  });
  EXPECT(ok == CALLERS * ROUNDS);
  EXPECT(last.run(opened.program, {action(0), action(1)}) == TITAN_STATUS_OK);
  EXPECT(last.output[0] == 2 * CALLERS * ROUNDS + 1 && last.output[N - 1] == last.output[0]);
}

void programs_of_a_device_do_not_mix() {
  Opened opened;
  at_once([&](int caller) {
    const uint64_t program = opened.create();
    Host host(static_cast<float>(caller + 1));
    for (int round = 0; round < ROUNDS; round++) {
      float sum[N];
      EXPECT(host.run(program, {action(0, round ? 0 : TITAN_FLAG_FIRST), action(1)}) == TITAN_STATUS_OK);
      EXPECT(host.output[round % N] == static_cast<float>((caller + 1) * (round + 1)));
      EXPECT(titan_buffer_read(program, 0, reinterpret_cast<uint8_t*>(sum), sizeof sum, nullptr) == TITAN_STATUS_OK && sum[0] == host.output[0]);
      EXPECT(titan_buffer_write(program, 0, reinterpret_cast<const uint8_t*>(sum), sizeof sum, nullptr) == TITAN_STATUS_OK);
    }
    EXPECT(titan_program_destroy(program, nullptr) == TITAN_STATUS_OK);
  });
}

/// A call either runs on what it found, or is told that the handle is no longer open.
void handles_may_go_while_calls_run() {
  for (int round = 0; round < ROUNDS; round++) {
    Opened opened;
    titan_profile_record records[CALLERS][2];  // outlive the calls: a run that began on an open handle may still write here
    std::atomic<int> ended{0};
    at_once([&](int caller) {
      if (caller == 0) {
        while (ended < round % 10) std::this_thread::yield();
        EXPECT(titan_program_destroy(opened.program, nullptr) == TITAN_STATUS_OK);
        EXPECT(titan_device_close(opened.device, nullptr) == TITAN_STATUS_OK);
        return;
      }
      Host host;
      titan_memory memory;
      for (int i = 0; i < 5; i++, ended++) {
        const int32_t statuses[] = {host.run(opened.program, {action(0), action(1)}), titan_program_memory(opened.program, &memory, nullptr),
                                    titan_program_profile(opened.program, records[caller], 2, nullptr), host.run(opened.program, {action(0), action(1)})};
        for (const int32_t status : statuses) EXPECT(status == TITAN_STATUS_OK || status == TITAN_STATUS_INVALID_HANDLE);
      }
    });
  }
}

/// A sum that grows everywhere by one number at a time, read while it does.
void state_is_read_whole_while_runs_go_on() {
  Opened opened;
  Host zero(0);
  EXPECT(zero.run(opened.program, {action(0, TITAN_FLAG_FIRST)}) == TITAN_STATUS_OK);
  std::atomic<int> running{1};
  at_once([&](int caller) {
    if (caller == 0) {
      Host host;
      for (int round = 0; round < 20 * ROUNDS; round++) EXPECT(host.run(opened.program, {action(0), action(0), action(1)}) == TITAN_STATUS_OK);
      running = 0;
      return;
    }
    float last = 0;
    while (running) {
      float sum[N];
      EXPECT(titan_buffer_read(opened.program, 0, reinterpret_cast<uint8_t*>(sum), sizeof sum, nullptr) == TITAN_STATUS_OK);
      EXPECT(std::all_of(sum, sum + N, [&](float x) { return x == sum[0]; }) && sum[0] >= last);
      last = sum[0];
    }
  });
}

void failures_reach_the_caller_that_caused_them() {
  Opened opened;
  at_once([&](int caller) {
    Host host(caller % 2 ? INFINITY : 1);
    for (int round = 0; round < ROUNDS; round++) {
      titan_error error = {};
      const int32_t status = host.run(opened.program, {action(0, TITAN_FLAG_FIRST | TITAN_FLAG_CHECK_FINITE)}, &error);
      EXPECT(status == (caller % 2 ? TITAN_STATUS_NOT_FINITE : TITAN_STATUS_OK));
      EXPECT(error.instruction == 0 && !std::strcmp(error.kernel, caller % 2 ? "accumulate" : ""));
    }
  });
}

void a_run_is_recorded_once() {
  Opened opened;
  Host host;
  titan_profile_record records[4] = {};
  EXPECT(titan_program_profile(opened.program, records, 3, nullptr) == TITAN_STATUS_OK);
  EXPECT(host.run(opened.program, {action(0), action(1), action(0)}) == TITAN_STATUS_OK);
  for (uint32_t i = 0; i < 3; i++) {
    EXPECT(records[i].action == i && records[i].instruction == i % 2 && records[i].stream == 0);
    EXPECT(records[i].begin_ns <= records[i].end_ns && (i == 0 || records[i - 1].end_ns <= records[i].begin_ns));
  }
  EXPECT(records[3].end_ns == 0);
  const titan_profile_record first = records[0];
  EXPECT(host.run(opened.program, {action(0)}) == TITAN_STATUS_OK);
  EXPECT(!std::memcmp(&first, records, sizeof first));
}

void a_run_with_more_instructions_than_records_is_refused() {
  Opened opened;
  Host host;
  titan_error error = {};
  titan_profile_record records[2] = {};
  EXPECT(titan_program_profile(opened.program, records, 2, nullptr) == TITAN_STATUS_OK);
  EXPECT(host.run(opened.program, {action(0), action(1), action(0)}, &error) == TITAN_STATUS_INVALID_ARGUMENT);
  EXPECT(!std::strcmp(error.message, "the run has 3 instructions; expected: at most 2, the records that there is room for"));
  EXPECT(records[0].end_ns == 0);
  EXPECT(titan_program_profile(opened.program, records, 2, nullptr) == TITAN_STATUS_OK);
  EXPECT(titan_program_profile(opened.program, nullptr, 0, nullptr) == TITAN_STATUS_OK);
  EXPECT(host.run(opened.program, {action(0), action(1), action(0)}) == TITAN_STATUS_OK);
}

void callers_record_at_once() {
  Opened opened;
  at_once([&](int) {
    Host host;
    const uint64_t program = opened.create();
    for (int round = 0; round < ROUNDS; round++) {
      titan_profile_record records[2] = {};
      EXPECT(titan_program_profile(program, records, 2, nullptr) == TITAN_STATUS_OK);
      EXPECT(host.run(program, {action(0), action(1)}) == TITAN_STATUS_OK);
      EXPECT(records[0].end_ns && records[0].end_ns <= records[1].begin_ns);
    }
    EXPECT(titan_program_destroy(program, nullptr) == TITAN_STATUS_OK);
  });
}

}  // namespace

int main() {
  calls_take_turns();
  programs_of_a_device_do_not_mix();
  state_is_read_whole_while_runs_go_on();
  handles_may_go_while_calls_run();
  failures_reach_the_caller_that_caused_them();
  a_run_is_recorded_once();
  a_run_with_more_instructions_than_records_is_refused();
  callers_record_at_once();
  return finish("executor");
}
