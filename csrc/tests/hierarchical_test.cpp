// Collectives of groups that span hosts, with threads in the place of ranks and mailboxes in the place of a network: sums in their one order, pieces
// where they belong, and no byte more between two hosts than has to go there.
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "../comm/combine.h"
#include "../comm/hierarchical.h"
#include "../comm/messages.h"
#include "collective_calls.h"
#include "test.h"

using namespace titan;
using namespace titan::test;
using namespace titan::comm;

namespace {

/// A network that counts what goes from host to host.
struct Network {
  std::mutex mutex;
  std::condition_variable arrived;
  std::map<std::pair<int, int>, std::deque<std::vector<char>>> boxes;  // from, to
  std::vector<int> host_of;
  struct Crossed { int64_t bytes = 0, messages = 0; } crossed;
};

class Mailbox final : public Messages {
 public:
  Mailbox(Network& network, int rank) : Messages(rank, static_cast<int>(network.host_of.size())), network_(network) {}

 protected:
  void send(int, int to, const char* data, int64_t bytes) override {
    std::lock_guard lock(network_.mutex);
    if (network_.host_of[static_cast<size_t>(rank)] != network_.host_of[static_cast<size_t>(to)]) network_.crossed.bytes += bytes, network_.crossed.messages++;
    network_.boxes[{rank, to}].emplace_back(data, data + bytes);
    network_.arrived.notify_all();
  }
  void receive(int lane, int from, char* data, int64_t bytes) override { lanes_[lane].push_back({from, data, bytes}); }
  bool finish(int lane, const titan_comm_wait&) override {
    for (const auto& [from, data, bytes] : lanes_[lane]) {
      std::unique_lock lock(network_.mutex);
      auto& box = network_.boxes[{from, rank}];
      network_.arrived.wait(lock, [&] { return !box.empty(); });
      EXPECT(static_cast<int64_t>(box.front().size()) == bytes);
      std::memcpy(data, box.front().data(), static_cast<size_t>(bytes));
      box.pop_front();
    }
    lanes_[lane].clear();
    return true;
  }

 private:
  struct Receipt { int from; char* data; int64_t bytes; };
  Network& network_;
  std::vector<Receipt> lanes_[LANES];
};

int32_t run_stages(void* group, const titan_comm_stages* stages, const titan_comm_wait* wait, char*) { return static_cast<Mailbox*>(group)->run(*stages, *wait); }

const titan_comm_wait FOREVER{[](void*) -> int32_t { return std::this_thread::yield(), 1; }, nullptr};

/// Runs body(rank, run) for each rank at once; `run` is a collective in two levels, or by messages alone. Returns what went between hosts.
template <class Body> Network::Crossed at_once(const std::vector<int>& host_of, bool in_levels, Body body) {
  Network network;
  network.host_of = host_of;
  titan_comm_module module = {};
  module.run_stages = run_stages;
  // One address space stands for the windows of all ranks: each sees it from address 1 on, as null is no place.
  std::vector<char*> windows{reinterpret_cast<char*>(1)};
  const std::vector<uint64_t> window_bytes{UINT64_MAX >> 1};
  std::vector<std::unique_ptr<Seat>> seats;
  for (size_t r = 0; r < host_of.size(); r++) seats.emplace_back(new Seat());
  std::vector<std::thread> threads;
  for (int r = 0; r < static_cast<int>(host_of.size()); r++)
    threads.emplace_back([&, r] {
      std::vector<SharedGroup::Member> members;
      int self = 0;
      for (int m = 0; m < static_cast<int>(host_of.size()); m++) {
        if (host_of[static_cast<size_t>(m)] != host_of[static_cast<size_t>(r)]) continue;
        if (m == r) self = static_cast<int>(members.size());
        members.push_back({seats[static_cast<size_t>(m)].get(), &windows, m});
      }
      Hierarchical group(host_of, r, SharedGroup(std::move(members), self));
      Mailbox mailbox(network, r);
      body(r, [&](const titan_comm_call& call) {
        std::string error;
        EXPECT((in_levels ? group.run(call, window_bytes, {module, &mailbox, FOREVER}, FOREVER, &error) : mailbox.Messages::run(call, FOREVER)) == TITAN_COMM_OK);
        EXPECT(error.empty());
      });
    });
  for (auto& thread : threads) thread.join();
  for (const auto& [ends, box] : network.boxes) EXPECT(box.empty());
  return network.crossed;
}

/// What a sum must be, to the bit: of each host first, then of the hosts, bf16 in f32 and rounded once.
template <class T> std::vector<T> sums_of(const std::vector<int>& host_of, const std::vector<std::vector<T>>& parts, bool maximum) {
  using W = typename Wide<T>::type;
  const auto add = [&](W a, W b) { return !maximum ? static_cast<W>(a + b) : static_cast<T>(a) > static_cast<T>(b) ? a : b; };
  std::vector<int> names;
  std::vector<size_t> host;  // by rank
  for (const int name : host_of) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    host.push_back(static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin()));
  }
  std::vector<T> all;
  std::vector<W> sums(names.size());
  for (size_t i = 0; i < parts[0].size(); i++) {
    for (size_t r = 0; r < parts.size(); r++) {
      const W x = static_cast<W>(parts[r][i]);
      const bool is_first = std::find(host.begin(), host.begin() + static_cast<std::ptrdiff_t>(r), host[r]) == host.begin() + static_cast<std::ptrdiff_t>(r);
      sums[host[r]] = is_first ? x : add(sums[host[r]], x);
    }
    W sum = sums[0];
    for (size_t h = 1; h < sums.size(); h++) sum = add(sum, sums[h]);
    all.push_back(static_cast<T>(sum));
  }
  return all;
}
const std::vector<std::vector<int>> PLACEMENTS = {{0, 0, 1, 1}, {5, 3, 5, 3}, {0, 0, 0, 1}, {1, 0, 0}, {0, 0, 1, 2, 2, 2, 2}};

/// Two tensors of one collective, the second far longer than what travels at a time; in place where everything is reduced.
template <class T> void sums_have_one_order(const std::vector<int>& host_of, uint64_t outer, uint64_t chunk, bool maximum) {
  const size_t size = host_of.size(), whole = outer * chunk * size;
  std::vector<std::vector<T>> in, few, scattered(size), reduced, reduced_few;
  for (size_t r = 0; r < size; r++) in.push_back(values<T>(whole, static_cast<int>(r))), few.push_back(values<T>(3, static_cast<int>(size + r)));
  reduced = in, reduced_few = few;
  at_once(host_of, true, [&](int rank, auto run) {
    const auto r = static_cast<size_t>(rank);
    scattered[r].resize(outer * chunk);
    run(call_of<T>(titan_comm_reduce_scatter, {pieces(in[r].data(), scattered[r].data(), outer, chunk)}, maximum));
    run(call_of<T>(titan_comm_all_reduce, {pieces(reduced_few[r].data(), reduced_few[r].data(), 1, 3), pieces(nullptr, nullptr, 1, 0), pieces(reduced[r].data(), reduced[r].data(), 1, whole)}, maximum));
  });
  const std::vector<T> sums = sums_of(host_of, in, maximum), sums_of_few = sums_of(host_of, few, maximum);
  const auto same = [](const T* a, const T* b, size_t n) { return !std::memcmp(a, b, n * sizeof(T)); };
  for (size_t r = 0; r < size; r++) {
    for (size_t o = 0; o < outer; o++) EXPECT(same(&scattered[r][o * chunk], &sums[(o * size + r) * chunk], chunk));
    EXPECT(same(reduced[r].data(), sums.data(), whole));
    EXPECT(same(reduced_few[r].data(), sums_of_few.data(), 3));
  }
}

/// More tensors than one meeting has room for, dense and in rows.
void gathers_put_pieces_one_after_another(const std::vector<int>& host_of) {
  constexpr size_t TENSORS = MOST_POSTED + 3;
  const size_t size = host_of.size();
  const auto outer = [](size_t i) { return i % 3 + 1; };
  const auto chunk = [](size_t i) { return i == 4 ? 40'001 : 5 * i; };
  const auto value = [](size_t i, size_t r, size_t at) { return static_cast<int32_t>(i * 1'000'003 + r * 700'001 + at); };
  size_t wrong = 0;
  std::mutex mutex;
  at_once(host_of, true, [&](int rank, auto run) {
    std::vector<std::vector<int32_t>> in(TENSORS), out(TENSORS);
    std::vector<titan_comm_tensor> tensors;
    for (size_t i = 0; i < TENSORS; i++) {
      for (size_t at = 0; at < outer(i) * chunk(i); at++) in[i].push_back(value(i, static_cast<size_t>(rank), at));
      out[i].resize(in[i].size() * size);
      tensors.push_back(pieces(in[i].data(), out[i].data(), outer(i), chunk(i)));
    }
    run(call_of<int32_t>(titan_comm_all_gather, tensors));
    std::lock_guard lock(mutex);
    for (size_t i = 0; i < TENSORS; i++)
      for (size_t o = 0; o < outer(i); o++)
        for (size_t r = 0; r < size; r++)
          for (size_t c = 0; c < chunk(i); c++) wrong += out[i][(o * size + r) * chunk(i) + c] != value(i, r, o * chunk(i) + c);
  });
  EXPECT(wrong == 0);
}

/// Four ranks on each of three hosts: what crosses is a fourth of what ranks that send each other everything send.
void each_byte_crosses_once() {
  const std::vector<int> host_of = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2};
  constexpr int64_t SIZE = 12, CHUNK = 6400, PIECE = CHUNK * sizeof(float), HOSTS = 3;
  const auto crossing = [&](titan_comm_kind kind, bool in_levels) {
    return at_once(host_of, in_levels, [&](int rank, auto run) {
      const std::vector<float> in = values<float>(static_cast<size_t>(SIZE * CHUNK), rank);
      std::vector<float> out(in.size());
      run(call_of<float>(kind, {pieces(in.data(), out.data(), 1, static_cast<uint64_t>(kind == titan_comm_all_reduce ? SIZE * CHUNK : CHUNK))}));
    });
  };
  for (const auto kind : {titan_comm_all_gather, titan_comm_reduce_scatter, titan_comm_all_reduce}) {
    const int64_t times = kind == titan_comm_all_reduce ? 2 : 1;
    const Network::Crossed levels = crossing(kind, true), flat = crossing(kind, false);
    EXPECT(levels.bytes == times * SIZE * (HOSTS - 1) * PIECE);
    EXPECT(levels.messages == times * SIZE * (HOSTS - 1));
    EXPECT(flat.bytes == 4 * levels.bytes);
    EXPECT(flat.messages == 4 * levels.messages);
  }
}

void levels_are_for_groups_that_span_hosts_and_share_some() {
  EXPECT(Hierarchical::is_worth({0, 0, 1, 1}) && Hierarchical::is_worth({0, 1, 1}));
  EXPECT(!Hierarchical::is_worth({0, 1, 2}) && !Hierarchical::is_worth({0, 0}) && !Hierarchical::is_worth({0}));
}

}  // namespace

int main() {
  for (const auto& host_of : PLACEMENTS) {
    for (const bool maximum : {false, true}) {
      sums_have_one_order<float>(host_of, 3, 7, maximum);
      sums_have_one_order<float>(host_of, 1, 2'500, maximum);
      sums_have_one_order<double>(host_of, 2, 300, maximum);
      sums_have_one_order<bf16>(host_of, 5, 333, maximum);
      sums_have_one_order<int32_t>(host_of, 2, 100, maximum);
    }
    gathers_put_pieces_one_after_another(host_of);
  }
  // More stages than are under way at once.
  sums_have_one_order<float>({1, 0, 0}, 1, 330'000, false);
  sums_have_one_order<bf16>({0, 0, 1}, 3, 110'001, false);
  each_byte_crosses_once();
  levels_are_for_groups_that_span_hosts_and_share_some();
  return finish("hierarchical");
}
