// How the ranks of a host share out its processors; and that a device's threads stay where they are bound.
#include "../comm/processors.h"

#include <algorithm>
#include <numeric>

#ifdef __linux__
#include <omp.h>
#include <sched.h>
#endif

#include "test.h"

using namespace titan;
using namespace titan::test;
using namespace titan::comm;

namespace {

Processors allowed(std::initializer_list<int> numbers, uint32_t threads) {
  Processors p = {};
  for (const int n : numbers) p.bits[n / 64] |= uint64_t{1} << (n % 64);
  p.threads = threads;
  return p;
}

std::vector<int> upto(int n) {
  std::vector<int> list(static_cast<size_t>(n));
  std::iota(list.begin(), list.end(), 0);
  return list;
}

void equal_ranks_get_equal_shares() {
  const std::vector<Processors> ranks(2, allowed({0, 1, 2, 3}, 2));
  EXPECT((share_of(ranks, 0, upto(4)).processors == std::vector<int>{0, 1}));
  EXPECT((share_of(ranks, 1, upto(4)).processors == std::vector<int>{2, 3}));
  EXPECT(share_of(ranks, 1, upto(4)).text == "threads bound to processors 2-3");
  // Cores of two threads each are not torn apart.
  EXPECT((share_of(ranks, 0, {0, 2, 1, 3}).processors == std::vector<int>{0, 2}));
  EXPECT(share_of(ranks, 0, {0, 2, 1, 3}).text == "threads bound to processors 0, 2");
}

void what_does_not_divide_is_left() {
  const std::vector<Processors> ranks(3, allowed({4, 5, 6, 7, 70}, 1));
  EXPECT((share_of(ranks, 2, upto(128)).processors == std::vector<int>{6}));
  EXPECT(share_of(ranks, 2, upto(128)).text == "threads bound to processor 6");
}

void too_many_threads_are_not_bound() {
  std::vector<Processors> ranks(3, allowed({0, 1}, 1));
  for (size_t r = 0; r < 3; r++) {
    const Share share = share_of(ranks, r, upto(2));
    EXPECT(share.processors.empty());
    EXPECT(share.text == "threads not bound: 3 ranks with 3 threads share processors 0-1");
  }
  ranks = {allowed({0, 1, 2, 3}, 1), allowed({0, 1, 2, 3}, 3)};
  EXPECT(share_of(ranks, 0, upto(4)).processors.empty());  // one that wants more than its share
  EXPECT(share_of(ranks, 1, upto(4)).processors.empty());
}

void who_was_bound_when_started_stays_so() {
  const std::vector<Processors> ranks = {allowed({0, 1}, 2), allowed({2, 3}, 2)};
  EXPECT(share_of(ranks, 1, upto(4)).processors.empty());
  EXPECT(share_of(ranks, 1, upto(4)).text == "threads on processors 2-3, to which this rank was bound when it started");
  // Two ranks on each of two sockets.
  const std::vector<Processors> sockets = {allowed({0, 1}, 1), allowed({0, 1}, 1), allowed({2, 3}, 1), allowed({2, 3}, 1)};
  for (int r = 0; r < 4; r++) EXPECT((share_of(sockets, static_cast<size_t>(r), upto(4)).processors == std::vector<int>{r}));
  // Half of what one may use is another's as well.
  const std::vector<Processors> odd = {allowed({0, 1}, 1), allowed({1, 2}, 1)};
  EXPECT(share_of(odd, 0, upto(4)).text == "threads not bound: 2 ranks with 2 threads share processors 0-1, and some may use others too");
}

#ifdef __linux__
void threads_stay_where_they_are_bound() {
  Executor executor(3);
  const Processors own = own_processors(3);
  std::vector<int> usable;
  for (const int n : processors_by_core())
    if (own.bits[n / 64] >> (n % 64) & 1) usable.push_back(n);
  EXPECT(!usable.empty());
  const int last = usable.back();
  bind(executor, {last});
  executor.run([&] {
    for (const int threads : {3, 2, 4}) {
      std::vector<int> at(static_cast<size_t>(threads), -1);
#pragma omp parallel num_threads(threads)
      {
        cpu_set_t set;
        sched_getaffinity(0, sizeof set, &set);
        at[static_cast<size_t>(omp_get_thread_num())] = CPU_COUNT(&set) == 1 && CPU_ISSET(last, &set) ? last : -2;
      }
      EXPECT(std::all_of(at.begin(), at.end(), [&](int processor) { return processor == last; }));
    }
  });
  // Others may run where they could before.
  const Processors still = own_processors(3);
  EXPECT(std::equal(std::begin(own.bits), std::end(own.bits), std::begin(still.bits)));
}
#endif

}  // namespace

int main() {
  equal_ranks_get_equal_shares();
  what_does_not_divide_is_left();
  too_many_threads_are_not_bound();
  who_was_bound_when_started_stays_so();
#ifdef __linux__
  threads_stay_where_they_are_bound();
#endif
  return finish("processors");
}
