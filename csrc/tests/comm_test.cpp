// Collectives through shared memory, with threads in the place of processes: the right pieces, sums in the order of the ranks, several tensors
// at once, and what happens when a rank does not come or comes for something else. Then the events between the streams of a program.
#ifdef __linux__
#include <sys/resource.h>
#endif
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "../comm/collective.h"
#include "../comm/combine.h"
#include "../comm/shared.h"
#include "../failure.h"
#include "../cpu/progress.h"
#include "collective_calls.h"
#include "test.h"

using namespace titan;
using namespace titan::test;
using namespace titan::comm;

namespace {

/// One address space stands for the windows of all ranks: each sees it from address 1 on, as null is no place.
struct Ranks {
  std::vector<std::unique_ptr<Seat>> seats;
  std::vector<char*> windows{reinterpret_cast<char*>(1)};
  std::vector<uint64_t> window_bytes{UINT64_MAX >> 1};

  explicit Ranks(int size) {
    for (int r = 0; r < size; r++) seats.emplace_back(new Seat());
  }
  SharedGroup group(int rank) {
    std::vector<SharedGroup::Member> members;
    for (auto& seat : seats) members.push_back({seat.get(), &windows, static_cast<int>(members.size())});
    return SharedGroup(std::move(members), rank);
  }
  /// Runs body(rank, run) for each rank at once; `run` is a collective.
  template <class Body> void at_once(Body body) {
    std::vector<std::thread> threads;
    for (int r = 0; r < static_cast<int>(seats.size()); r++)
      threads.emplace_back([this, r, &body] {
        SharedGroup own = group(r);
        std::string error;
        const titan_comm_wait forever{[](void*) -> int32_t { return std::this_thread::yield(), 1; }, nullptr};
        body(r, [&](const titan_comm_call& call) {
          EXPECT(own.run(call, window_bytes, forever, &error) == TITAN_COMM_OK);
          EXPECT(error.empty());
        });
      });
    for (auto& thread : threads) thread.join();
  }
};

/// What element i of a sum must be, to the bit: added in the order of the ranks, bf16 in f32 and rounded once.
template <class T> T sum_of(const std::vector<std::vector<T>>& parts, size_t i, bool maximum) {
  using W = typename Wide<T>::type;
  W sum = static_cast<W>(parts[0][i]);
  for (size_t r = 1; r < parts.size(); r++) sum = maximum ? static_cast<W>(static_cast<T>(std::max(static_cast<double>(static_cast<T>(sum)), static_cast<double>(parts[r][i])))) : sum + static_cast<W>(parts[r][i]);
  return static_cast<T>(sum);
}
template <class T> bool same(const T& a, const T& b) { return !std::memcmp(&a, &b, sizeof a); }

template <class T> void sums_are_in_the_order_of_the_ranks(int size, uint64_t outer, uint64_t chunk, bool maximum) {
  Ranks ranks(size);
  const size_t whole = outer * chunk * static_cast<size_t>(size);
  std::vector<std::vector<T>> in, scattered(static_cast<size_t>(size)), reduced;
  for (int r = 0; r < size; r++) in.push_back(values<T>(whole, r));
  reduced = in;  // in place
  ranks.at_once([&](int r, auto run) {
    auto& piece = scattered[static_cast<size_t>(r)];
    piece.resize(outer * chunk);
    const titan_comm_tensor scatter = pieces(in[static_cast<size_t>(r)].data(), piece.data(), outer, chunk);
    run(call_of<T>(titan_comm_reduce_scatter, &scatter, 1, maximum));
    T* own = reduced[static_cast<size_t>(r)].data();
    const titan_comm_tensor reduce = pieces(own, own, 1, whole);
    run(call_of<T>(titan_comm_all_reduce, &reduce, 1, maximum));
  });
  for (int r = 0; r < size; r++)
    for (size_t o = 0; o < outer; o++)
      for (size_t c = 0; c < chunk; c++) {
        const size_t i = (o * static_cast<size_t>(size) + static_cast<size_t>(r)) * chunk + c;
        EXPECT(same(scattered[static_cast<size_t>(r)][o * chunk + c], sum_of(in, i, maximum)));
      }
  for (int r = 0; r < size; r++)
    for (size_t i = 0; i < whole; i++) EXPECT(same(reduced[static_cast<size_t>(r)][i], sum_of(in, i, maximum)));
}

void gathers_put_pieces_one_after_another() {
  constexpr int SIZE = 3;
  Ranks ranks(SIZE);
  std::vector<std::vector<float>> out(SIZE, std::vector<float>(2 * 5 * SIZE, -1));
  ranks.at_once([&](int r, auto run) {
    std::vector<float> in(2 * 5);
    for (size_t i = 0; i < in.size(); i++) in[i] = static_cast<float>(100 * r + static_cast<int>(i));
    const titan_comm_tensor tensor = pieces(in.data(), out[static_cast<size_t>(r)].data(), 2, 5);
    run(call_of<float>(titan_comm_all_gather, &tensor));
  });
  for (const auto& whole : out)
    for (size_t o = 0; o < 2; o++)
      for (size_t r = 0; r < SIZE; r++)
        for (size_t c = 0; c < 5; c++) EXPECT(whole[(o * SIZE + r) * 5 + c] == static_cast<float>(100 * r + 5 * o + c));
}

void shifts_hand_tensors_to_the_next() {
  for (const int size : {1, 2, 3}) {
    Ranks ranks(size);
    std::vector<std::vector<float>> out(static_cast<size_t>(size), std::vector<float>(7, -1));
    ranks.at_once([&](int r, auto run) {
      std::vector<float> in(7, static_cast<float>(r));
      float* to = out[static_cast<size_t>(r)].data();
      // Two rows of two with a gap, from rows without; and one of two.
      const titan_comm_tensor tensors[] = {{in.data(), to, 2, 2, 2, 3, 0, 0, 0, 0}, {in.data() + 5, to + 5, 1, 2, 2, 2, 0, 0, 0, 0}};
      run(call_of<float>(titan_comm_ring_shift, tensors, 2));
    });
    for (int r = 0; r < size; r++)
      for (size_t i = 0; i < 7; i++) EXPECT(out[static_cast<size_t>(r)][i] == (i == 2 ? -1 : static_cast<float>((r + size - 1) % size)));
  }
}

/// A value of [2 size, 3, 2 size] that is cut along its first dim becomes one that is cut along its last, and the other way round.
void shardings_move_from_dim_to_dim() {
  for (const size_t size : {1, 2, 3}) {
    Ranks ranks(static_cast<int>(size));
    const auto value = [&](size_t a, size_t b, size_t c) { return static_cast<float>((a * 3 + b) * 2 * size + c); };
    ranks.at_once([&](int r, auto run) {
      const auto self = static_cast<size_t>(r);
      std::vector<float> rows, columns;
      for (size_t a = 0; a < 2 * size; a++)
        for (size_t b = 0; b < 3; b++)
          for (size_t c = 0; c < 2 * size; c++) {
            if (a / 2 == self) rows.push_back(value(a, b, c));
            if (c / 2 == self) columns.push_back(value(a, b, c));
          }
      std::vector<float> to_columns(columns.size(), -1), to_rows(rows.size(), -1);
      const titan_comm_tensor forth{rows.data(), to_columns.data(), 6, 2, 0, 0, 2, 12, 0, 0}, back{columns.data(), to_rows.data(), 6, 2, 0, 0, 12, 2, 0, 0};
      run(call_of<float>(titan_comm_all_to_all, &forth));
      run(call_of<float>(titan_comm_all_to_all, &back));
      EXPECT(to_columns == columns && to_rows == rows);
    });
  }
}

/// Around the ring both ways and across, one tensor empty, from members that do not all send or receive as much.
void exchanges_bring_each_tensor_to_whom_it_is_for() {
  constexpr uint32_t SIZE = 4;
  constexpr uint32_t WAYS[][2] = {{3, 0}, {0, 1}, {1, 0}, {1, 2}, {0, 2}, {2, 1}, {0, 1}};
  Ranks ranks(SIZE);
  ranks.at_once([&](int r, auto run) {
    const auto self = static_cast<uint32_t>(r);
    char sent[std::size(WAYS)][8], received[std::size(WAYS)][8] = {};
    std::vector<titan_comm_tensor> tensors;
    for (uint32_t i = 0; i < std::size(WAYS); i++) {
      const auto [from, to] = WAYS[i];
      std::fill_n(sent[i], 8, static_cast<char>(10 * i + self));
      tensors.push_back({from == self ? sent[i] : nullptr, to == self ? received[i] : nullptr, 1, i == 3 ? uint64_t{0} : 5 + uint64_t{i} % 3, 0, 0, 0, 0, from, to});
    }
    run({titan_comm_exchange, static_cast<uint32_t>(DType::bytes), 0, static_cast<uint32_t>(tensors.size()), tensors.data()});
    for (uint32_t i = 0; i < std::size(WAYS); i++)
      for (uint64_t b = 0; b < 8; b++) EXPECT(received[i][b] == (WAYS[i][1] == self && b < tensors[i].chunk ? static_cast<char>(10 * i + WAYS[i][0]) : 0));
  });
}

/// More tensors than one meeting has room for, one of them empty.
void many_tensors_are_one_collective() {
  constexpr uint32_t SIZE = 2, TENSORS = 2 * MOST_POSTED + 3;
  Ranks ranks(SIZE);
  std::vector<std::vector<double>> out(SIZE, std::vector<double>(TENSORS));
  ranks.at_once([&](int r, auto run) {
    std::vector<double> in(TENSORS);
    std::vector<titan_comm_tensor> tensors;
    for (uint32_t i = 0; i < TENSORS; i++) {
      in[i] = (r + 1) * static_cast<double>(i);
      tensors.push_back(pieces(&in[i], &out[static_cast<size_t>(r)][i], 1, i != 7));
    }
    run(call_of<double>(titan_comm_all_reduce, tensors.data(), TENSORS));
  });
  for (const auto& sums : out)
    for (uint32_t i = 0; i < TENSORS; i++) EXPECT(sums[i] == (i == 7 ? 0 : 3.0 * i));
}

/// Asked a few times, then gives up.
struct Patience {
  int left = 1000;
  titan_comm_wait wait() {
    return {[](void* self) -> int32_t { return std::this_thread::yield(), static_cast<Patience*>(self)->left-- > 0; }, this};
  }
};

void who_does_not_come_is_named() {
  Ranks ranks(3);
  SharedGroup group = ranks.group(1);
  float x = 1;
  std::string error;
  Patience patience;
  const titan_comm_tensor tensor = pieces(&x, &x, 1, 1);
  EXPECT(group.run(call_of<float>(titan_comm_all_reduce, &tensor), ranks.window_bytes, patience.wait(), &error) == TITAN_COMM_GAVE_UP);
  EXPECT((group.missing() == std::vector<int>{0, 2}));
}

void who_comes_for_something_else_is_refused() {
  Ranks ranks(2);
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; r++)
    threads.emplace_back([&ranks, r] {
      SharedGroup group = ranks.group(r);
      float in[4] = {}, out[8] = {};
      std::string error;
      Patience patience{1 << 20};
      const titan_comm_tensor tensor = pieces(in, out, 1, r ? uint64_t{4} : uint64_t{3});
      EXPECT(group.run(call_of<float>(titan_comm_all_gather, &tensor), ranks.window_bytes, patience.wait(), &error) == TITAN_COMM_FAILED);
      EXPECT(error == (r ? "member 0 of the group is at another collective" : "member 1 of the group is at another collective"));
    });
  for (auto& thread : threads) thread.join();
}

void malformed_collectives_are_refused() {
  const Array<float> part({2, 3}), whole({2, 6});
  const Array<double> other({2, 6});
  const auto refusal = [&](int kind, const auto& in, const auto& out, std::initializer_list<int64_t> words) {
    CallBuilder builder;
    builder.add(in).add(out);
    for (const int64_t word : words) builder.integer(word);
    return COLLECTIVES[kind].check(builder.call(1));
  };
  EXPECT(refusal(0, part, whole, {1, 2, 0, 1, 1, 1, 0}) == "");
  EXPECT(refusal(0, part, whole, {1, 2, 0, 1, 1, 1, 1}) == "");
  EXPECT(refusal(0, part, whole, {1, 2, 0, 1, 1, 1, 2}) == "has first 2; expected: 0, or 1 where only the first microbatch does it");
  EXPECT(refusal(1, whole, part, {1, 2, 1, 0, 1, 1, 0}) == "");
  EXPECT(refusal(2, whole, whole, {1, 1, 5, 1, 0}) == "");
  EXPECT(refusal(2, whole, whole, {1, 1, 5, 0, 1}) == "");
  EXPECT(refusal(2, whole, Array<float>({2, 6}), {1, 1, 5, 0, 1}) == "tensor 0 is reduced in the last microbatch alone, but not in place; expected: one place, since else nothing is done");
  EXPECT(refusal(2, whole, whole, {1, 1, 5, 0, 2}) == "has last 2; expected: 0, or 1 where only the last microbatch does it");
  EXPECT(refusal(3, part, part, {1, 2, 4, 2}) == "tensor 0 is made in place; expected: memory of its own");
  EXPECT(refusal(3, part, Array<float>({2, 3}), {1, 2, 4, 2}) == "");
  EXPECT(refusal(3, part, Array<float>({2, 3}, {4, 1}), {1, 2, 4, 2}) == "");
  EXPECT(refusal(3, part, Array<float>({2, 3}, {2, 1}), {1, 2, 4, 2}) == "tensor 0 is not rows without gaps; expected: two dims, the last of stride 1");
  EXPECT(refusal(3, Array<float>({6}), Array<float>({6}), {1, 2, 4, 2}) == "tensor 0 is not rows without gaps; expected: two dims, the last of stride 1");
  EXPECT(refusal(3, part, whole, {1, 2, 4, 2}) == "tensor 0 becomes [2, 6]; expected: [2, 3]");
  EXPECT(refusal(0, part, whole, {1, 2, 0, 1, 1, 0, 0}) == "tensor 0 becomes [2, 6]; expected: [4, 3]");
  EXPECT(refusal(0, part, whole, {1, 2, 0, 1, 1, 2, 0}) == "tensor 0 is cut along dim 2 of 2; expected: one that it has");
  EXPECT(refusal(0, part, other, {1, 2, 0, 1, 1, 1, 0}) == "tensor 0 has another dtype than the first input; expected: the same for all");
  EXPECT(refusal(1, whole, part, {1, 4, 0, 1, 2, 3, 1, 1, 0}) == "tensor 0 has 6 along dim 1; expected: a multiple of the 4 ranks");
  EXPECT(refusal(1, whole, part, {1, 2, 0, 1, 1, 1, 2}) == "combines by 2; expected: 0 (sum) or 1 (max)");
  EXPECT(refusal(4, Array<float>({4, 3}), whole, {1, 2, 0, 1, 1, 0, 1, 1}) == "");
  EXPECT(refusal(4, part, whole, {1, 2, 0, 1, 1, 0, 1, 1}) == "tensor 0 becomes [2, 6]; expected: [1, 6]");
  EXPECT(refusal(4, part, whole, {1, 2, 0, 1, 1, 1, 1, 0}) == "tensor 0 has 3 along dim 1; expected: a multiple of the 2 ranks");
  EXPECT(refusal(4, part, part, {1, 1, 0, 1, 1, 1, 1}) == "tensor 0 is cut and joined along dim 1; expected: two dims");
  EXPECT(refusal(4, part, whole, {1, 2, 0, 1, 1, 0, 1, 2}) == "tensor 0 is joined along dim 2 of 2; expected: one that it has");
  EXPECT(refusal(2, part, part, {1, 0, 0, 0}) == "has a group of no ranks; expected: at least 1");
  EXPECT(refusal(2, part, part, {1, 2, 3, 3, 0, 0}) == "has rank 3 in its group twice; expected: different ranks");
  EXPECT(refusal(2, part, Array<float>({2, 3}, {1, 2}), {1, 1, 0, 0, 0}) == "tensor 0 is not dense; expected: unbroken row-major runs");
}

void malformed_exchanges_are_refused() {
  const Array<float> six({6}), two({2}), holes({3}, {2});
  // inputs, member, group, from, to, bytes: member 1 of ranks 4, 7 and 5 sends 24 bytes to 0 and receives 8 from 2, which sends 0 something too.
  const auto refusal = [&](std::vector<const Array<float>*> operands, std::initializer_list<int64_t> words) {
    CallBuilder builder;
    for (const auto* operand : operands) builder.add(*operand);
    for (const int64_t word : words) builder.integer(word);
    return COLLECTIVES[titan_comm_exchange].check(builder.call(1));
  };
  EXPECT(refusal({&six, &two}, {1, 1, 3, 4, 7, 5, 3, 1, 2, 2, 3, 0, 1, 0, 3, 24, 8, 16}) == "");
  EXPECT(refusal({&two, &six}, {1, 1, 3, 4, 7, 5, 3, 1, 2, 2, 3, 0, 1, 0, 3, 24, 8, 16}) == "tensor 0 has 8 bytes; expected: 24");
  EXPECT(refusal({&six}, {1, 1, 3, 4, 7, 5, 3, 1, 2, 2, 3, 0, 1, 0, 3, 24, 8, 16}) == "member 1 has 1 tensors to send and 0 to receive; expected: 1 and 1");
  EXPECT(refusal({&six, &two}, {1, 3, 3, 4, 7, 5, 3, 1, 2, 2, 3, 0, 1, 0, 3, 24, 8, 16}) == "is that of member 3; expected: one of the 3 of its group");
  EXPECT(refusal({&six, &two}, {1, 1, 3, 4, 7, 5, 3, 1, 2, 2, 3, 0, 1, 3, 3, 24, 8, 16}) == "tensor 2 is for member 3; expected: one of the 3 of its group");
  EXPECT(refusal({&six, &two}, {1, 1, 3, 4, 7, 5, 3, 1, 2, 2, 3, 0, 1, 2, 3, 24, 8, 16}) == "tensor 2 goes from member 2 to itself; expected: to another");
  EXPECT(refusal({&six, &two}, {1, 1, 3, 4, 7, 5, 2, 1, 2, 3, 0, 1, 0, 3, 24, 8, 16}) == "sends 3 tensors from 2 members to 3; expected: one of each for every tensor");
  EXPECT(refusal({&holes, &two}, {1, 1, 3, 4, 7, 5, 3, 1, 2, 2, 3, 0, 1, 0, 3, 12, 8, 16}) == "tensor 0 is not dense; expected: unbroken row-major runs");
  EXPECT(refusal({}, {0, 0, 1, 4, 0, 0, 0}) == "");
}

/// Who sends 24 bytes, who receives them, and who does both at a time: a byte takes a nanosecond, and a message 5 until it begins.
void a_link_takes_as_long_for_what_comes_as_for_what_goes() {
  const Array<float> six({6}), other({6});
  const auto link_ns = [&](std::vector<const Array<float>*> operands, std::initializer_list<int64_t> words) {
    CallBuilder builder;
    for (const auto* operand : operands) builder.add(*operand);
    for (const int64_t word : words) builder.integer(word);
    return read_collective(titan_comm_exchange, builder.call(1)).link_ns(1e9, 5);
  };
  EXPECT(link_ns({&six}, {1, 1, 2, 4, 7, 1, 1, 1, 0, 1, 24}) == 29);
  EXPECT(link_ns({&six}, {0, 0, 2, 4, 7, 1, 1, 1, 0, 1, 24}) == 29);
  EXPECT(link_ns({&six, &other}, {1, 0, 2, 4, 7, 2, 1, 0, 2, 0, 1, 2, 24, 24}) == 29);
}

/// A stream that waits goes on when the other has come so far, or has stopped.
void streams_wait_for_each_other() {
  for (int round = 0; round < 200; round++) {
    cpu::Progress progress;
    progress.begin();
    int done = 0;
    std::thread other([&] {
      EXPECT(progress.wait(0, 2));
      EXPECT(done == 1);
      done = 2;
      progress.advance(1);
    });
    progress.advance(0);
    done = 1;
    progress.advance(0);
    EXPECT(progress.wait(1, 1));
    EXPECT(done == 2);
    other.join();
    progress.begin();
    std::thread stopped([&] { EXPECT(!progress.wait(0, 1)); });
    progress.stop(0);
    stopped.join();
    progress.stop(1);
    progress.advance(1);
    EXPECT(!progress.wait(1, 100));  // it goes no further
    EXPECT(progress.stopped_by() == 0);
  }
}

#ifdef __linux__
/// A stream that waits for much to be done sleeps until then: whoever wakes it in between pays for that, at each instruction.
void streams_are_woken_once() {
  cpu::Progress progress;
  progress.begin();
  constexpr uint64_t INSTRUCTIONS = 500;
  const auto sleeps = [] {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
  };
  std::atomic<bool> waits{false};
  std::thread other([&] {
    const long before = sleeps();
    waits = true;
    EXPECT(progress.wait(0, INSTRUCTIONS));
    EXPECT(sleeps() - before < static_cast<long>(INSTRUCTIONS) / 10);
  });
  while (!waits) std::this_thread::yield();
  for (uint64_t n = 0; n < INSTRUCTIONS; n++) {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
    progress.advance(0);
  }
  other.join();
}
#endif

/// Memory of one process as another sees it: here the same process twice.
void windows_can_be_mapped() {
  Window window(10000);
  std::strcpy(window.data() + 9000, "seen");
  const Mapping mapping(window.place());
  EXPECT(!std::strcmp(mapping.data() + 9000, "seen"));
  EXPECT(reinterpret_cast<uintptr_t>(window.data()) % (2 << 20) == 0);
  window.settle();
  std::strcpy(window.data() + 9000, "again");
  EXPECT(!std::strcmp(mapping.data() + 9000, "again"));
}

/// Process and descriptor are numbers, which may stand for something else where another process looks: another rank's memory, or no memory.
void only_the_memory_that_is_meant_is_mapped() {
  const Window window(10000), other(10000);
  int pipes[2];
  EXPECT(!pipe(pipes));
  const auto refusal = [&](WindowPlace place) -> std::string {
    try {
      const Mapping mapping(place);
    } catch (const Failure& failure) {
      return failure.what();
    }
    return "it was mapped";
  };
  const auto mistaken = [&](int descriptor) {
    WindowPlace place = window.place();
    place.descriptor = descriptor;
    return refusal(place);
  };
  EXPECT(mistaken(other.place().descriptor).find(" is /memfd:libtitan arena ") != std::string::npos);
  EXPECT(mistaken(other.place().descriptor).find(", and not the memory of another rank (/memfd:libtitan arena ") != std::string::npos);
  EXPECT(mistaken(pipes[0]).find(" is pipe:[") != std::string::npos);
  EXPECT(mistaken(1000).find("No such file or directory; expected: memory that the ranks of a host can share; fix: ") != std::string::npos);
  close(pipes[0]);
  close(pipes[1]);
}

}  // namespace

int main() {
  for (const int size : {1, 2, 3, 4})
    for (const bool maximum : {false, true}) {
      sums_are_in_the_order_of_the_ranks<float>(size, 3, 7, maximum);
      sums_are_in_the_order_of_the_ranks<float>(size, 1, 2500, maximum);
      sums_are_in_the_order_of_the_ranks<double>(size, 2, 300, maximum);
      sums_are_in_the_order_of_the_ranks<bf16>(size, 5, 333, maximum);
      sums_are_in_the_order_of_the_ranks<int32_t>(size, 2, 100, maximum);
    }
  gathers_put_pieces_one_after_another();
  shifts_hand_tensors_to_the_next();
  shardings_move_from_dim_to_dim();
  exchanges_bring_each_tensor_to_whom_it_is_for();
  many_tensors_are_one_collective();
  who_does_not_come_is_named();
  who_comes_for_something_else_is_refused();
  malformed_collectives_are_refused();
  malformed_exchanges_are_refused();
  a_link_takes_as_long_for_what_comes_as_for_what_goes();
  streams_wait_for_each_other();
#ifdef __linux__
  streams_are_woken_once();
  windows_can_be_mapped();
  only_the_memory_that_is_meant_is_mapped();
#endif
  return finish("comm");
}
