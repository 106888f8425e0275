// Collectives between GPUs: every kind in every dtype, in rows, groups and graphs, against a plain computation.
#include <filesystem>

#include "several_gpus.h"

using namespace titan;
using namespace titan::test;

namespace {

/// Element i of what a rank has: small integers, whose sums are exact in each dtype.
template <class T> T value(int rank, size_t i) { return T(static_cast<float>(static_cast<int>((static_cast<size_t>(rank) * 7 + i * 5) % 11) - 5)); }
template <class T> std::vector<T> numbers(int rank, size_t n) {
  std::vector<T> list;
  for (size_t i = 0; i < n; i++) list.push_back(value<T>(rank, i));
  return list;
}
template <class T> bool same(const T& a, const T& b) { return !std::memcmp(&a, &b, sizeof a); }
template <class T> T combined(int size, size_t i, bool maximum) {
  float sum = static_cast<float>(value<T>(0, i));
  for (int r = 1; r < size; r++) sum = maximum ? std::max(sum, static_cast<float>(value<T>(r, i))) : sum + static_cast<float>(value<T>(r, i));
  return T(sum);
}

template <class T> void moves(Gpu& gpu, uint64_t outer, uint64_t chunk) {
  const int size = gpu.ranks.size(), rank = gpu.ranks.rank();
  const auto n = static_cast<uint64_t>(size), self = static_cast<uint64_t>(rank), behind = (self + n - 1) % n;
  T* const out = reinterpret_cast<T*>(gpu.arena + ARENA / 2);
  const uint64_t part = outer * chunk, whole = part * n;
  T* in = gpu.put(numbers<T>(rank, whole), 0);

  gpu.collectives->launch(collective<T>(titan_comm_all_gather, {pieces(in, out, outer, chunk)}), 0, gpu.comm);
  std::vector<T> found = gpu.get(out, whole);
  for (uint64_t o = 0; o < outer; o++)
    for (uint64_t r = 0; r < n; r++)
      for (uint64_t c = 0; c < chunk; c++) EXPECT(same(found[(o * n + r) * chunk + c], value<T>(static_cast<int>(r), o * chunk + c)));

  // Rows with a gap behind each, from rows without.
  gpu.collectives->launch(collective<T>(titan_comm_ring_shift, {{in, out, outer, chunk, chunk, chunk + 1, 0, 0, 0, 0}}), 0, gpu.comm);
  found = gpu.get(out, outer * (chunk + 1) - 1);
  for (uint64_t o = 0; o < outer; o++)
    for (uint64_t c = 0; c < chunk; c++) EXPECT(same(found[o * (chunk + 1) + c], value<T>(static_cast<int>(behind), o * chunk + c)));

  // [outer, n, chunk] of each rank, cut along the second dim and joined along the first.
  gpu.collectives->launch(collective<T>(titan_comm_all_to_all, {{in, out, outer, chunk, 0, 0, chunk, part, 0, 0}}), 0, gpu.comm);
  found = gpu.get(out, whole);
  for (uint64_t r = 0; r < n; r++)
    for (uint64_t o = 0; o < outer; o++)
      for (uint64_t c = 0; c < chunk; c++) EXPECT(same(found[(r * outer + o) * chunk + c], value<T>(static_cast<int>(r), (o * n + self) * chunk + c)));
  EXPECT(gpu.works());
}

template <class T> void adds(Gpu& gpu, uint64_t outer, uint64_t chunk) {
  const int size = gpu.ranks.size();
  const auto n = static_cast<uint64_t>(size), self = static_cast<uint64_t>(gpu.ranks.rank());
  const uint64_t part = outer * chunk, whole = part * n;
  T* const out = reinterpret_cast<T*>(gpu.arena + ARENA / 2);
  for (const bool maximum : {false, true}) {
    T* in = gpu.put(numbers<T>(gpu.ranks.rank(), whole), 0);
    gpu.collectives->launch(collective<T>(titan_comm_reduce_scatter, {pieces(in, out, outer, chunk)}, maximum), 0, gpu.comm);
    std::vector<T> found = gpu.get(out, part);
    for (uint64_t o = 0; o < outer; o++)
      for (uint64_t c = 0; c < chunk; c++) EXPECT(same(found[o * chunk + c], combined<T>(size, (o * n + self) * chunk + c, maximum)));
    gpu.collectives->launch(collective<T>(titan_comm_all_reduce, {pieces(in, in, 1, whole)}, maximum), 0, gpu.comm);  // in place
    found = gpu.get(in, whole);
    for (uint64_t i = 0; i < whole; i++) EXPECT(same(found[i], combined<T>(size, i, maximum)));
  }
  EXPECT(gpu.works());
}

void every_collective_means_what_it_says(int size) {
  in_processes(size, [&](Ranks& ranks) {
    Gpu gpu(ranks, {first(size)});
    for (const uint64_t outer : {1, 3}) {
      adds<float>(gpu, outer, 7), adds<double>(gpu, outer, 4), adds<bf16>(gpu, outer, 5), adds<int32_t>(gpu, outer, 6);
      moves<float>(gpu, outer, 7), moves<double>(gpu, outer, 4), moves<bf16>(gpu, outer, 5), moves<int32_t>(gpu, outer, 6);
      moves<f8e4m3>(gpu, outer, 9), moves<f8e5m2>(gpu, outer, 3);
    }
  });
}

void exchanges_bring_each_tensor_to_whom_it_is_for() {
  in_processes(3, [](Ranks& ranks) {
    Gpu gpu(ranks, {first(3)});
    const int rank = ranks.rank();
    char* const in = gpu.put(numbers<char>(rank, 100), 0);
    char* const out = gpu.arena + ARENA / 2;
    // 0 sends 1 two tensors, and 2 one; 2 sends 0 one. For the rest they are null.
    struct { int from, to; uint64_t bytes; } const list[] = {{0, 1, 10}, {0, 2, 20}, {2, 0, 30}, {0, 1, 40}};
    std::vector<titan_comm_tensor> tensors;
    for (const auto& [from, to, bytes] : list)
      tensors.push_back({from == rank ? in + bytes : nullptr, to == rank ? out + 2 * bytes : nullptr, 1, bytes, 0, 0, 0, 0, static_cast<uint32_t>(from), static_cast<uint32_t>(to)});
    gpu.collectives->launch(collective<char>(titan_comm_exchange, tensors), 0, gpu.comm);
    for (const auto& [from, to, bytes] : list) {
      if (to != rank) continue;
      const std::vector<char> found = gpu.get(out + 2 * bytes, bytes);
      for (uint64_t i = 0; i < bytes; i++) EXPECT(found[i] == value<char>(from, bytes + i));
    }
    EXPECT(gpu.works());
  });
}

/// A program with collectives may be made and closed again and again.
void what_processes_share_is_given_back() {
  in_processes(2, [](Ranks& ranks) {
    const auto descriptors = [] { return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}); };
    const auto before = descriptors();
    for (int i = 0; i < 3; i++) Gpu gpu(ranks, {first(2)});
    EXPECT(descriptors() == before);
  });
}

/// NCCL takes 2048 calls in a group.
void more_rows_than_a_group_takes_are_several_groups() {
  constexpr uint64_t ROWS = 1500;
  in_processes(2, [](Ranks& ranks) {
    Gpu gpu(ranks, {first(2)});
    int32_t* const in = gpu.put(numbers<int32_t>(ranks.rank(), ROWS), 0);
    auto* const out = reinterpret_cast<int32_t*>(gpu.arena + ARENA / 2);
    gpu.collectives->launch(collective<int32_t>(titan_comm_ring_shift, {{in, out, ROWS, 1, 1, 1, 0, 0, 0, 0}}), 0, gpu.comm);
    const auto found = gpu.get(out, ROWS);
    for (uint64_t i = 0; i < ROWS; i++) EXPECT(found[i] == value<int32_t>(1 - ranks.rank(), i));
    EXPECT(gpu.works());
  });
}

/// Four ranks as a square: sums along rows, then along columns, several tensors at once.
void ranks_exchange_in_several_groups() {
  in_processes(4, [](Ranks& ranks) {
    const int rank = ranks.rank(), row = rank / 2 * 2, column = rank % 2;
    Gpu gpu(ranks, {{row, row + 1}, {column, column + 2}});
    float* const in = gpu.put(numbers<float>(rank, 20), 0);
    for (const size_t group : {0, 1}) gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(in, in, 1, 5), pieces(in + 5, in + 5, 1, 15)}), group, gpu.comm);
    const auto found = gpu.get(in, 20);
    for (size_t i = 0; i < 20; i++) EXPECT(found[i] == combined<float>(4, i, false));
    EXPECT(gpu.works());
  });
}

/// As stages of pipelines do, whose programs differ: two ranks name the groups that both are in, one the larger first, the other the smaller.
void groups_are_joined_in_one_order_in_whichever_order_they_are_named() {
  in_processes(3, [](Ranks& ranks) {
    const int rank = ranks.rank();
    std::vector<std::vector<int>> groups = {first(3)};
    if (rank < 2) groups.insert(rank ? groups.begin() : groups.end(), first(2));
    Gpu gpu(ranks, groups);
    float* const in = gpu.put(numbers<float>(rank, 8), 0);
    gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(in, in, 1, 8)}), rank == 1, gpu.comm);
    const auto found = gpu.get(in, 8);
    for (size_t i = 0; i < 8; i++) EXPECT(found[i] == combined<float>(3, i, false));
    EXPECT(gpu.works());
  });
}

void collectives_of_a_graph_run_whenever_it_is_launched() {
  in_processes(2, [](Ranks& ranks) {
    Gpu gpu(ranks, {first(2)});
    float* const in = gpu.put(numbers<float>(ranks.rank(), 8), 0);
    cudaStreamSynchronize(gpu.comm);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    cudaStreamBeginCapture(gpu.comm, cudaStreamCaptureModeThreadLocal);
    gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(in, in, 1, 8)}), 0, gpu.comm);
    EXPECT(cudaStreamEndCapture(gpu.comm, &graph) == cudaSuccess && cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
    for (const float times : {1.0f, 2.0f, 4.0f}) {
      cudaGraphLaunch(exec, gpu.comm);
      const auto found = gpu.get(in, 8);
      for (size_t i = 0; i < 8; i++) EXPECT(found[i] == times * combined<float>(2, i, false));
    }
    cudaGraphDestroy(graph);
    cudaGraphExecDestroy(exec);
    EXPECT(gpu.works());
  });
}

}  // namespace

int main() {
#ifdef __linux__  // where memory without a name is shared
  for (const int size : {2, 3, 4}) every_collective_means_what_it_says(size);
  exchanges_bring_each_tensor_to_whom_it_is_for();
  what_processes_share_is_given_back();
  more_rows_than_a_group_takes_are_several_groups();
  ranks_exchange_in_several_groups();
  groups_are_joined_in_one_order_in_whichever_order_they_are_named();
  collectives_of_a_graph_run_whenever_it_is_launched();
#endif
  return finish("cuda_nccl");
}
