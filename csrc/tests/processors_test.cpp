// How many threads a process computes on, how the ranks of a host share out its processors, and that threads run where they are bound.
#include "../processors.h"

#include <algorithm>
#include <limits>

#ifdef __linux__
#include <sched.h>
#endif

#include "../cpu/parallel.h"
#include "../cpu/team.h"
#include "../executor.h"
#include "../failure.h"
#include "folder.h"
#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

Processors allowed(std::initializer_list<int> numbers, uint32_t threads) {
  Processors p = {};
  for (const int n : numbers) p.bits[n / 64] |= uint64_t{1} << (n % 64);
  p.threads = threads;
  return p;
}

/// Cores of one processor each.
std::vector<Core> single(int n) {
  std::vector<Core> list;
  for (int i = 0; i < n; i++) list.push_back({i});
  return list;
}

/// Cores of two: 0 and n, 1 and n + 1, ...
std::vector<Core> twofold(int n) {
  std::vector<Core> list;
  for (int i = 0; i < n; i++) list.push_back({i, n + i});
  return list;
}

constexpr double NO_QUOTA = std::numeric_limits<double>::infinity();

bool are(const Threads& threads, int number, const char* why) { return threads.number == number && threads.why == why; }

void a_process_has_a_thread_for_each_core() {
  EXPECT(are(threads_for(single(2), single(2), NO_QUOTA, {}), 2, ""));
  EXPECT(are(threads_for(single(3), single(8), NO_QUOTA, {}), 3, ""));
  EXPECT(are(threads_for(twofold(4), twofold(4), NO_QUOTA, {}), 4, "one for each core of 8 hyper-threads"));
  // Of which it may use one hyper-thread each.
  EXPECT(are(threads_for(usable_cores(allowed({0, 1}, 0), twofold(4)), twofold(4), NO_QUOTA, {}), 2, ""));
}

void a_quota_keeps_so_many_threads_busy() {
  EXPECT(are(threads_for(single(64), single(64), 1.5, {}), 2, "the CPU quota is 1.5"));
  EXPECT(are(threads_for(single(64), single(64), 4, {}), 4, "the CPU quota is 4"));
  EXPECT(are(threads_for(single(64), single(64), 0.25, {}), 1, "the CPU quota is 0.25"));
  EXPECT(are(threads_for(single(2), single(64), 1.5, {}), 2, ""));  // is no more than that anyway
  EXPECT(are(threads_for(twofold(32), twofold(32), 48, {}), 32, "one for each core of 64 hyper-threads"));
  // Together, ranks have no more threads than one process would.
  EXPECT(are(threads_for(single(64), single(64), 6, {4, false}), 1, "the CPU quota is 6 for 4 ranks"));
  EXPECT(are(threads_for(single(64), single(64), 8, {4, true}), 2, "the CPU quota is 8 for 4 ranks"));
  EXPECT(are(threads_for(single(2), single(2), 1.5, {2, false}), 1, "an equal share of 2 cores for each of 2 ranks"));
}

void ranks_share_cores_unless_each_has_its_own() {
  EXPECT(are(threads_for(single(8), single(8), NO_QUOTA, {4, false}), 2, "an equal share of 8 cores for each of 4 ranks"));
  EXPECT(threads_for(single(8), single(8), NO_QUOTA, {3, true}).number == 2 && threads_for(single(2), single(2), NO_QUOTA, {4, true}).number == 1);
  EXPECT(are(threads_for(twofold(4), twofold(4), NO_QUOTA, {2, true}), 2, "an equal share of 4 cores for each of 2 ranks"));
  // Whoever started four ranks has given each a quarter; started without, they may use a quarter together.
  EXPECT(are(threads_for(single(2), single(8), NO_QUOTA, {4, true}), 2, ""));
  EXPECT(threads_for(single(2), single(8), NO_QUOTA, {4, false}).number == 1);
}

void cores_are_told_apart_by_their_threads() {
  const Folder folder({});
  const auto processor = [&](int number, const char* socket, const char* siblings) {
    const std::string path = text("/sys/devices/system/cpu/cpu", number, "/topology/");
    folder.write(path + "physical_package_id", socket);
    folder.write(path + "thread_siblings_list", siblings);
  };
  // Two sockets, between which the system goes to and fro.
  processor(0, "0", "0,4"), processor(1, "1", "1,5"), processor(2, "0", "2,6"), processor(3, "1", "3,7");
  processor(4, "0", "0,4"), processor(5, "1", "1,5"), processor(6, "0", "2,6"), processor(7, "1", "3,7");
  EXPECT((cores_of_host(folder.path) == std::vector<Core>{{0, 4}, {2, 6}, {1, 5}, {3, 7}}));
  EXPECT((usable_cores(allowed({4, 5, 1}, 1), cores_of_host(folder.path)) == std::vector<Core>{{4}, {1, 5}}));
  EXPECT(!cores_of_host(folder.path + "/nowhere").empty());
  EXPECT(sockets_of(cores_of_host(folder.path), folder.path) == 2 && sockets_of({{0, 4}, {2}}, folder.path) == 1);
}

void equal_ranks_get_equal_shares() {
  const std::vector<Processors> ranks(2, allowed({0, 1, 2, 3}, 2));
  EXPECT((share_of(ranks, 0, single(4)).cores == std::vector<Core>{{0}, {1}}));
  EXPECT((share_of(ranks, 1, single(4)).cores == std::vector<Core>{{2}, {3}}));
  EXPECT(share_of(ranks, 1, single(4)).text == "threads bound to processors 2-3");
  // Cores of two hyper-threads are not torn apart, unless there are too few.
  const std::vector<Processors> few(2, allowed({0, 1, 2, 3}, 1));
  EXPECT((share_of(few, 0, twofold(2)).cores == std::vector<Core>{{0, 2}}));
  EXPECT(share_of(few, 0, twofold(2)).text == "threads bound to processors 0, 2");
  EXPECT((share_of(ranks, 0, twofold(2)).cores == std::vector<Core>{{0}, {2}}));
}

void what_does_not_divide_is_left() {
  const std::vector<Processors> ranks(3, allowed({4, 5, 6, 7, 70}, 1));
  EXPECT((share_of(ranks, 2, single(128)).cores == std::vector<Core>{{6}}));
  EXPECT(share_of(ranks, 2, single(128)).text == "threads bound to processor 6");
}

void too_many_threads_are_not_bound() {
  std::vector<Processors> ranks(3, allowed({0, 1}, 1));
  for (size_t r = 0; r < 3; r++) {
    const Share share = share_of(ranks, r, single(2));
    EXPECT(share.cores.empty());
    EXPECT(share.text == "threads not bound: 3 ranks with 3 threads share processors 0-1");
  }
  ranks = {allowed({0, 1, 2, 3}, 1), allowed({0, 1, 2, 3}, 3)};
  EXPECT(share_of(ranks, 0, single(4)).cores.empty());  // one that wants more than its share
  EXPECT(share_of(ranks, 1, single(4)).cores.empty());
}

void who_was_bound_when_started_stays_so() {
  const std::vector<Processors> ranks = {allowed({0, 1}, 2), allowed({2, 3}, 1)};
  // With a thread for each of its cores, each has its own.
  EXPECT((share_of(ranks, 0, single(4)).cores == std::vector<Core>{{0}, {1}}));
  EXPECT(share_of(ranks, 1, single(4)).cores.empty());
  EXPECT(share_of(ranks, 1, single(4)).text == "threads on processors 2-3, to which this rank was bound when it started");
  // Two ranks on each of two sockets.
  const std::vector<Processors> sockets = {allowed({0, 1}, 1), allowed({0, 1}, 1), allowed({2, 3}, 1), allowed({2, 3}, 1)};
  for (int r = 0; r < 4; r++) EXPECT((share_of(sockets, static_cast<size_t>(r), single(4)).cores == std::vector<Core>{{r}}));
  // Half of what one may use is another's as well.
  const std::vector<Processors> odd = {allowed({0, 1}, 1), allowed({1, 2}, 1)};
  EXPECT(share_of(odd, 0, single(4)).text == "threads not bound: 2 ranks with 2 threads share processors 0-1, and some may use others too");
}

void a_process_alone_is_bound_to_cores_that_are_its_own_or_on_several_sockets() {
  const Processors some = allowed({0, 1, 2, 3}, 2);
  EXPECT((share_alone(some, twofold(2), 2).cores == twofold(2)));
  EXPECT(share_alone(some, twofold(2), 2).text == "each bound to a core");
  EXPECT((share_alone(allowed({2, 3}, 2), single(8), 1).cores == std::vector<Core>{{2}, {3}}));
  // All of a host with one socket, which others may use too.
  EXPECT(share_alone(some, twofold(2), 1).cores.empty() && share_alone(some, twofold(2), 1).text.empty());
  // Of several, others may need the cores that it would take first.
  for (const uint32_t threads : {1u, 3u, 5u}) EXPECT(share_alone(allowed({0, 1, 2, 3}, threads), single(8), 2).cores.empty());
  EXPECT(share_alone(allowed({0}, 1), single(2), 1).cores.empty());
  setenv("OMP_PROC_BIND", "false", 1);
  EXPECT(share_alone(some, twofold(2), 2).cores.empty() && share_alone(some, twofold(2), 2).text == "bound by OMP_PROC_BIND");
  unsetenv("OMP_PROC_BIND");
}

#ifdef __linux__
void each_thread_stays_where_it_is_bound() {
  const Processors own = own_processors(3);
  const std::vector<Core> usable = usable_cores(own, cores_of_host());
  EXPECT(!usable.empty());
  const std::vector<Core> two = {usable.front(), usable.back()};
  Executor executor;
  cpu::Team team(3);
  executor.run([&] { team.bind(two); });
  // A smaller team ends threads; those that come instead are to find their places.
  for (const int threads : {3, 2, 4, 1, 3}) {
    std::vector<int> right(static_cast<size_t>(threads), 0);
    executor.run([&] {
      team.use(threads);
      cpu::on_each_thread(threads, [&](int number, int) {
        cpu_set_t set, expected;
        sched_getaffinity(0, sizeof set, &set);
        const auto thread = static_cast<size_t>(number);
        CPU_ZERO(&expected);
        for (const int processor : two[thread % 2]) CPU_SET(processor, &expected);
        right[thread] = CPU_EQUAL(&set, &expected);
      });
    });
    EXPECT(std::all_of(right.begin(), right.end(), [](int is) { return is; }));
  }
  // Others may run where they could before.
  const Processors still = own_processors(3);
  EXPECT(std::equal(std::begin(own.bits), std::end(own.bits), std::begin(still.bits)));
}
#endif

}  // namespace

int main() {
  a_process_has_a_thread_for_each_core();
  a_quota_keeps_so_many_threads_busy();
  ranks_share_cores_unless_each_has_its_own();
  cores_are_told_apart_by_their_threads();
  equal_ranks_get_equal_shares();
  what_does_not_divide_is_left();
  too_many_threads_are_not_bound();
  who_was_bound_when_started_stays_so();
  a_process_alone_is_bound_to_cores_that_are_its_own_or_on_several_sockets();
#ifdef __linux__
  each_thread_stays_where_it_is_bound();
#endif
  return finish("processors");
}
