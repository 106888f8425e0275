// How work is dealt to threads, OpenMP's or libtitan's own: each piece to one of them, in a region that ends when all is done; teams grow and
// shrink, regions do not nest, and every thread that opens regions has a team of its own.
#include "../cpu/parallel.h"

#include <atomic>
#include <thread>
#include <vector>

#include "test.h"

using namespace titan;
using namespace titan::cpu;
using namespace titan::test;

namespace {

/// f(i) must come once for each i; and what each one writes is seen after the region.
void all_is_done_once(int threads) {
  for (const int64_t n : {0, 1, 2, 7, 64, 1000}) {
    std::vector<int> done(size_t(n), 0), by(size_t(n), -1);
    for_each(n, threads, [&](int64_t i) { done[size_t(i)]++; });
    for_each_in_turn(n, threads, [&](int64_t i, int thread) { done[size_t(i)]++, by[size_t(i)] = thread; });
    for (int64_t i = 0; i < n; i++) EXPECT(done[size_t(i)] == 2 && by[size_t(i)] >= 0 && by[size_t(i)] < threads);
  }
}

/// The pieces of neighbouring threads follow each other, and their sizes differ by one at most.
void pieces_are_equal(int threads) {
  const int64_t n = 5 * threads + 2;
  std::vector<std::thread::id> who(static_cast<size_t>(n));
  for_each(n, threads, [&](int64_t i) { who[size_t(i)] = std::this_thread::get_id(); });
  int64_t pieces = 1, size = 1;
  for (int64_t i = 1; i < n; i++, size++)
    if (who[size_t(i)] != who[size_t(i - 1)]) {
      EXPECT(size == 5 || size == 6);
      pieces++, size = 0;
    }
  EXPECT(pieces == threads);
  EXPECT(who[0] == std::this_thread::get_id());
}

/// Nobody leaves a barrier before all have come, however often they meet.
void threads_meet(int threads) {
  std::vector<int> turn(size_t(threads), 0);
  std::atomic<int> early{0};
  on_each_thread(threads, [&](int thread, int count) {
    for (int round = 1; round <= 200; round++) {
      turn[size_t(thread)] = round;
      barrier();
      for (int other = 0; other < count; other++) early += turn[size_t(other)] != round;
      barrier();
    }
  });
  EXPECT(early == 0);
  for (const int last : turn) EXPECT(last == 200);
}

void a_region_inside_another_is_its_threads_own() {
  std::atomic<int> inner{0}, elsewhere{0};
  EXPECT(!in_parallel());
  on_each_thread(3, [&](int, int count) {
    EXPECT(count == 3 && in_parallel());
    const auto self = std::this_thread::get_id();
    on_each_thread(4, [&](int thread, int alone) { inner++, elsewhere += thread != 0 || alone != 1 || std::this_thread::get_id() != self; });
    for_each(5, 4, [&](int64_t) { elsewhere += std::this_thread::get_id() != self; });
  });
  EXPECT(inner == 3 && elsewhere == 0 && !in_parallel());
}

void teams_do_not_disturb_each_other() {
  std::atomic<int64_t> wrong{0};
  std::vector<std::thread> openers;
  for (int opener = 0; opener < 3; opener++)
    openers.emplace_back([&, opener] {
      for (int round = 0; round < 100; round++) {
        std::vector<int64_t> squares(50, -1);
        for_each(50, 2 + (opener + round) % 3, [&](int64_t i) { squares[size_t(i)] = i * i + opener; });
        for (int64_t i = 0; i < 50; i++) wrong += squares[size_t(i)] != i * i + opener;
      }
    });
  for (auto& opener : openers) opener.join();
  EXPECT(wrong == 0);
}

}  // namespace

int main() {
  for (const int threads : {1, 3, 2, 5, 1, 4}) {
    all_is_done_once(threads);
    pieces_are_equal(threads);
    threads_meet(threads);
  }
  a_region_inside_another_is_its_threads_own();
  teams_do_not_disturb_each_other();
  return finish("parallel");
}
