// A program that runs on two streams beside other ranks: streams go on beyond an action, as far as the program lets them. And what becomes of
// exceptions: the caller gets a failure that says where it was, once nothing of the run is at work any more, and the other ranks get to know. The
// other rank is a mirror (mirror_module.cpp).
// A world is joined once in a process and lasts until it ends, so each case is a process of its own.
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <new>
#include <thread>

#include "../comm/world.h"
#include "../cpu/engine.h"
#include "../loaded_program.h"
#include "encode.h"
#include "mirror_module.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

constexpr uint32_t COPY = 3, ALL_REDUCE = 2, N = 4096;

void (*on_copy)(const Call& call) = nullptr;  // instead of copying
int copies = 0;

/// The kernels of this machine, but for `copy`.
const Backend& backend() {
  static std::vector<Kernel> kernels;
  static Backend own = cpu::choose_level().backend;
  if (kernels.empty()) {
    kernels.assign(own.kernels, own.kernels + own.num_kernels);
    kernels[COPY].run = [](const Call& call) {
      copies++;
      if (on_copy) on_copy(call);
    };
    own.kernels = kernels.data();
  }
  return own;
}

/// A rank that has joined the mirror by messages. Section 0 of its program reduces x over both ranks, while it copies y to z, and then x to y. Sections
/// 1 to 3 do the same, each a part of it.
struct Rank {
  std::shared_ptr<Device> device = std::make_shared<Device>(std::make_unique<cpu::CpuEngine>(cpu::Choice{backend(), false}, Threads{1, ""}));
  titan_mirror* mirror = nullptr;
  std::shared_ptr<LoadedProgram> program;

  Rank() {
    setenv("TITAN_EXCHANGE", "messages", 1);
    device->world = comm::World::open("mirror", {20'000, 20'000, 8, 0, 0});
    // It is open already; the path is that of this program, as for World::open.
    Dl_info own;
    EXPECT(dladdr(reinterpret_cast<void*>(&titan_abi_version), &own));
    std::string path = own.dli_fname;
    path = path.substr(0, path.rfind('/') + 1) + "libtitan_mirror.so";
    void* library = dlopen(path.c_str(), RTLD_NOW);
    mirror = reinterpret_cast<titan_mirror* (*)()>(dlsym(library, "titan_mirror_hooks"))();
    const Bytes bytes = encode({
        .threads = 1,
        .arena_bytes = 4 * N * 3,
        .input_bytes = 0,
        .output_bytes = 0,
        .views = {{0, 0, 0, {N}, {1}}, {0, 0, 4 * N, {N}, {1}}, {0, 0, 8 * N, {N}, {1}}},
        .steps = {{static_cast<uint32_t>(backend().num_kernels) + ALL_REDUCE, {0, 0}, {1, 2, 0, 1, 0, 0}, 1}, {COPY, {1, 2}, {}}, {COPY, {0, 1}, {}, 0, {0}},
                  {static_cast<uint32_t>(backend().num_kernels) + ALL_REDUCE, {0, 0}, {1, 2, 0, 1, 0, 0}, 1}, {COPY, {1, 2}, {}}, {COPY, {0, 1}, {}, 0, {3}}},
        .sections = {{0, 3}, {3, 1}, {4, 1}, {5, 1}},
    });
    program = LoadedProgram::load(device, bytes.data.data(), bytes.data.size());
  }
  /// How a run fails.
  Failure failure() {
    const titan_action action = {};
    try {
      program->run(&action, 1, {});
    } catch (const Failure& failure) {
      return failure;
    }
    return Failure(TITAN_STATUS_OK, "the run went well");
  }
};

bool contains(const char* text, const char* part) { return std::strstr(text, part); }

std::atomic<int> working{0};

/// A collective whose other ranks do not come, and that takes its time to see that waiting is no use.
int32_t wait_for_ever(const titan_comm_call*, const titan_comm_wait* wait) {
  working++;
  while (wait->go_on(wait->context));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  working--;
  return TITAN_COMM_GAVE_UP;
}

[[noreturn]] void run_out_of_memory() { throw std::bad_alloc(); }

std::atomic<int> reduced{0}, begun{0};

/// Three times: a collective that ends only when a kernel of the next action has begun, and a kernel of the one behind that, which waits for it.
void a_collective_outlives_its_action_until_somebody_waits_for_it() {
  Rank rank;
  rank.mirror->run = [](const titan_comm_call*, const titan_comm_wait* wait) -> int32_t {
    const int awaited = reduced + reduced + 1;
    while (begun < awaited)
      if (!wait->go_on(wait->context)) return TITAN_COMM_GAVE_UP;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT(begun == awaited);  // the kernel that waits has not begun
    reduced++;
    return TITAN_COMM_OK;
  };
  on_copy = [](const Call&) { begun++; };
  std::vector<titan_action> actions;
  for (int round = 0; round < 3; round++)
    for (const uint32_t section : {1u, 2u, 3u}) actions.push_back({section, 0, 0, 0, 0, 0});
  rank.program->run(actions.data(), actions.size(), {});
  EXPECT(reduced == 3 && copies == 6);
}

/// What was never run is not waited for; nor is what another run did.
void nothing_is_waited_for_that_the_run_has_not_begun() {
  Rank rank;
  const titan_action action = {3, 0, 0, 0, 0, 0};
  rank.program->run(&action, 1, {});
  EXPECT(copies == 1);
}

std::vector<const void*> reduced_at;

/// A collective is done on the slot of its action, and on what lies in none where it always does.
void collectives_go_to_the_slots_of_their_actions() {
  Rank rank;
  const auto all_reduce = static_cast<uint32_t>(backend().num_kernels) + ALL_REDUCE;
  const Bytes bytes = encode({
      .threads = 1,
      .arena_bytes = 64 + 3 * 128,
      .input_bytes = 0,
      .output_bytes = 0,
      .views = {{0, 0, 0, {4}, {1}}, {3, 0, 64, {4}, {1}}},
      .steps = {{all_reduce, {0, 1, 0, 1}, {2, 2, 0, 1, 0, 0}, 1}},
      .sections = {{0, 1}},
      .slots = 3,
      .slot_bytes = 128,
  });
  rank.program = LoadedProgram::load(rank.device, bytes.data.data(), bytes.data.size());
  rank.mirror->run = [](const titan_comm_call* call, const titan_comm_wait*) -> int32_t {
    for (int i = 0; i < 2; i++) reduced_at.insert(reduced_at.end(), {call->tensors[i].in, call->tensors[i].out});
    return TITAN_COMM_OK;
  };
  for (const uint32_t slot : {0u, 2u, 1u}) {
    const titan_action action = {0, slot, 0, 0, 0, 0};
    reduced_at.clear();
    rank.program->run(&action, 1, {});
    EXPECT(reduced_at.size() == 4 && reduced_at[0] == reduced_at[1] && reduced_at[2] == reduced_at[3]);
    EXPECT(static_cast<const char*>(reduced_at[2]) - static_cast<const char*>(reduced_at[0]) == 64 + 64 + 128 * static_cast<std::ptrdiff_t>(slot));
  }
}

void memory_that_runs_out_in_a_kernel_ends_the_collective_beside_it() {
  Rank rank;
  rank.mirror->run = wait_for_ever;
  on_copy = [](const Call&) {
    while (!working) std::this_thread::yield();
    run_out_of_memory();
  };
  const Failure failure = rank.failure();
  EXPECT(working == 0);  // else the comm thread still works on what is gone
  EXPECT(failure.status() == TITAN_STATUS_OUT_OF_MEMORY && contains(failure.what(), "host memory ran out in copy of norm!; expected: "));
  EXPECT(failure.error.section == 0 && failure.error.instruction == 1 && !std::strcmp(failure.error.kernel, "copy") && !std::strcmp(failure.error.scope, "norm!"));
  EXPECT(contains(rank.mirror->told, "host memory ran out in copy of norm!"));
  on_copy = nullptr;
  EXPECT(contains(rank.failure().what(), "gave up: host memory ran out in copy of norm!"));
}

void memory_that_runs_out_in_a_collective_stops_the_kernels() {
  Rank rank;
  rank.mirror->run = [](const titan_comm_call*, const titan_comm_wait*) -> int32_t { run_out_of_memory(); };
  const Failure failure = rank.failure();
  EXPECT(failure.status() == TITAN_STATUS_OUT_OF_MEMORY && contains(failure.what(), "host memory ran out in all_reduce of norm!; expected: "));
  EXPECT(failure.error.section == 0 && failure.error.instruction == 0 && !std::strcmp(failure.error.kernel, "all_reduce"));
  EXPECT(copies <= 1);  // not the one that waits for the collective
  EXPECT(contains(rank.mirror->told, "host memory ran out in all_reduce of norm!"));
}

void any_exception_is_a_failure() {
  Rank rank;
  on_copy = [](const Call&) { throw 42; };
  const Failure failure = rank.failure();
  EXPECT(failure.status() == TITAN_STATUS_INTERNAL && !std::strcmp(failure.what(), "an unknown exception in copy of norm!"));
  EXPECT(contains(rank.mirror->told, "an unknown exception in copy of norm!"));
}

void the_end_of_the_process_waits_for_no_kernel_that_has_failed() {
  Rank rank;
  on_copy = [](const Call&) { run_out_of_memory(); };
  EXPECT(rank.failure().status() == TITAN_STATUS_OUT_OF_MEMORY);
  const auto start = std::chrono::steady_clock::now();
  halt_executors();
  EXPECT(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
}

void who_hears_that_another_has_given_up_gives_up() {
  Rank rank;
  rank.mirror->run = wait_for_ever;
  std::strcpy(rank.mirror->heard, "the disk is full");
  const Failure failure = rank.failure();
  EXPECT(failure.status() == TITAN_STATUS_COMMUNICATION && contains(failure.what(), "cannot end: rank 1 gave up: the disk is full"));
  EXPECT(!*rank.mirror->told);  // the other ranks have heard the same
}

void a_program_that_cannot_be_loaded_is_told() {
  Rank rank;
  const uint8_t nonsense[200] = {};
  try {
    LoadedProgram::load(rank.device, nonsense, sizeof nonsense);
    EXPECT(!"refused");
  } catch (const Failure& failure) {
    EXPECT(failure.status() == TITAN_STATUS_INVALID_PROGRAM && !std::strcmp(rank.mirror->told, failure.what()));
  }
}

std::atomic<float*> expected{nullptr};

void messages_that_come_late_find_their_memory() {
  Rank rank;
  rank.mirror->run = [](const titan_comm_call* call, const titan_comm_wait*) -> int32_t {
    expected = static_cast<float*>(call->tensors[0].out);
    return TITAN_COMM_GAVE_UP;
  };
  EXPECT(rank.failure().status() == TITAN_STATUS_COMMUNICATION);
  rank.program.reset();
  for (uint32_t i = 0; i < N; i++) expected[i] = 1;
}

/// Runs a case in a process of its own, which must get to its end.
void apart(const char* name, void (*run)()) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    failures = 0;
    alarm(60);
    run();
    if (failures) std::printf("  in %s\n", name);
    std::fflush(stdout);
    _exit(failures ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status) std::printf("%s ended with status %d\n", name, status), failures++;
}

}  // namespace

int main() {
#define APART(name) apart(#name, name)
  APART(a_collective_outlives_its_action_until_somebody_waits_for_it);
  APART(nothing_is_waited_for_that_the_run_has_not_begun);
  APART(collectives_go_to_the_slots_of_their_actions);
  APART(memory_that_runs_out_in_a_kernel_ends_the_collective_beside_it);
  APART(memory_that_runs_out_in_a_collective_stops_the_kernels);
  APART(any_exception_is_a_failure);
  APART(the_end_of_the_process_waits_for_no_kernel_that_has_failed);
  APART(who_hears_that_another_has_given_up_gives_up);
  APART(a_program_that_cannot_be_loaded_is_told);
  APART(messages_that_come_late_find_their_memory);
  return finish("failures");
}
