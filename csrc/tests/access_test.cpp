// Sections and copies of state stay out of each other's way: who waits for whom, and that nobody waits without need.
#include "../access.h"

#include <atomic>
#include <chrono>
#include <latch>
#include <thread>

#include "test.h"

using namespace titan;
using namespace titan::test;

namespace {

using namespace std::chrono_literals;

const std::vector<Range> WRITES = {{100, 200}, {300, 400}};

void ranges_that_touch_are_one() {
  const auto joined = join_ranges({{30, 40}, {0, 10}, {10, 20}, {35, 38}, {50, 50}});
  EXPECT(joined.size() == 2 && joined[0].begin == 0 && joined[0].end == 20 && joined[1].begin == 30 && joined[1].end == 40);
  for (const Range inside : {Range{0, 101}, Range{199, 250}, Range{310, 320}, Range{0, 1000}}) EXPECT(overlap(WRITES, inside));
  for (const Range outside : {Range{0, 100}, Range{200, 300}, Range{400, 500}}) EXPECT(!overlap(WRITES, outside));
}

/// Does `second` come to its end while `first` is under way? `first` is called with what tells that it has begun, and ends when its argument says so.
template <class First, class Second> bool goes_beside(First first, Second second) {
  std::latch begun(1), end(1);
  std::atomic<bool> done = false;
  std::thread one([&] { first([&] { begun.count_down(), end.wait(); }); });
  begun.wait();
  std::thread other([&] { second(), done = true; });
  for (int i = 0; i < 50 && !done; i++) std::this_thread::sleep_for(1ms);
  const bool beside = done;
  end.count_down();
  one.join(), other.join();
  EXPECT(done);  // in the end, nobody is left waiting
  return beside;
}

void a_copy_waits_for_a_section_only_where_that_is_in_its_way() {
  Access access;
  const auto section = [&](auto inside) { access.begin(0, WRITES), inside(), access.end(0); };
  EXPECT(goes_beside(section, [&] { access.read({0, 100}, [] {}); }));
  EXPECT(goes_beside(section, [&] { access.read({200, 300}, [] {}); }));
  EXPECT(!goes_beside(section, [&] { access.read({199, 300}, [] {}); }));
  EXPECT(!goes_beside(section, [&] { access.write({0, 100}, [] {}); }));
}

/// Two streams are in sections of their own: that one leaves says nothing of the other.
void a_copy_waits_for_each_stream() {
  Access access;
  const std::vector<Range> others = {{500, 600}};
  const auto both = [&](auto inside) { access.begin(0, others), access.begin(1, WRITES), access.end(0), inside(), access.end(1); };
  EXPECT(goes_beside(both, [&] { access.read({500, 600}, [] {}); }));
  EXPECT(!goes_beside(both, [&] { access.read({100, 101}, [] {}); }));
  EXPECT(!goes_beside(both, [&] { access.write({500, 600}, [] {}); }));
  const auto first = [&](auto inside) { access.begin(1, WRITES), access.begin(0, others), access.end(1), inside(), access.end(0); };
  EXPECT(!goes_beside(first, [&] { access.read({599, 700}, [] {}); }));
}

void a_section_waits_for_a_copy_only_where_that_is_in_its_way() {
  Access access;
  const auto section = [&] { access.begin(0, WRITES), access.end(0); };
  EXPECT(goes_beside([&](auto inside) { access.read({200, 300}, inside); }, section));
  EXPECT(!goes_beside([&](auto inside) { access.read({399, 500}, inside); }, section));
  EXPECT(!goes_beside([&](auto inside) { access.write({0, 1}, inside); }, section));
}

void copies_go_beside_each_other() {
  Access access;
  EXPECT(goes_beside([&](auto inside) { access.read({0, 100}, inside); }, [&] { access.read({0, 100}, [] {}); }));
}

void a_copy_that_fails_is_in_nobodys_way() {
  Access access;
  bool failed = false;
  try {
    access.write({0, 1}, [] { throw 1; });
  } catch (int) {
    failed = true;
  }
  EXPECT(failed);
  EXPECT(goes_beside([](auto inside) { inside(); }, [&] { access.begin(0, WRITES), access.end(0); }));
}

/// Sections that set all of a block to one number, and copies of it: no copy sees two numbers.
void no_copy_is_torn() {
  constexpr int N = 1 << 12;
  Access access;
  std::vector<int> block(N, 0);
  const std::vector<Range> writes = {{0, N}};
  std::atomic<bool> ended = false;
  std::thread writer([&] {
    for (int round = 1; round < 300; round++) {
      access.begin(0, writes);
      std::fill(block.begin(), block.end(), round);
      access.end(0);
      std::this_thread::yield();
    }
    ended = true;
  });
  std::vector<std::thread> readers;
  for (int r = 0; r < 3; r++)
    readers.emplace_back([&] {
      std::vector<int> copy(N);
      while (!ended) {
        access.read({0, N}, [&] { copy = block; });
        EXPECT(copy.front() == copy.back() && copy[N / 2] == copy[0]);
      }
    });
  writer.join();
  for (auto& reader : readers) reader.join();
}

}  // namespace

int main() {
  ranges_that_touch_are_one();
  a_copy_waits_for_a_section_only_where_that_is_in_its_way();
  a_copy_waits_for_each_stream();
  a_section_waits_for_a_copy_only_where_that_is_in_its_way();
  copies_go_beside_each_other();
  a_copy_that_fails_is_in_nobodys_way();
  no_copy_is_torn();
  return finish("access");
}
