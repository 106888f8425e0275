// Collectives between GPUs, each played by a process of its own, through NCCL, which is played too: every kind in every dtype against a plain computation.
// Then errors that NCCL would leave to chance, or hang at: each is planted, and noticed.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "../clock.h"
#include "../cuda/collectives.h"
#include "../cuda/host/machine.h"
#include "../cuda/host/nccl.h"
#include "../failure.h"
#include "test.h"

using namespace titan;
using namespace titan::cuda::host;
using titan::cuda::Collectives;

namespace {

constexpr int MOST = 4;
constexpr uint64_t ARENA = 1 << 20, PATIENCE_NS = uint64_t{60} * 1'000'000'000;

/// What the processes of a case see of each other.
struct Board {
  std::atomic<int> arrived, gave_up, other;
  char told[MOST][4096];
};

class Ranks final : public comm::Ranks {
 public:
  Ranks(int rank, int size, Board& board) : rank_(rank), size_(size), board(board) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void gather(const void* mine, void* all, uint64_t bytes) override {
    EXPECT(bytes <= sizeof board.told[0]);
    std::memcpy(board.told[rank_], mine, bytes);
    meet();
    for (int r = 0; r < size_; r++) std::memcpy(static_cast<char*>(all) + static_cast<uint64_t>(r) * bytes, board.told[r], bytes);
    meet();
  }
  std::vector<comm::Group*> agree(const std::vector<comm::Collective>&) override { return {}; }
  void launched(comm::Launched&) override {}
  void ended(const comm::Launched&) override {}
  void check(const comm::Launched&, uint64_t, bool, const std::string&) override {}
  void check(const char* what, uint64_t since_ns) override {
    if (board.gave_up) throw Failure(TITAN_STATUS_COMMUNICATION, text(what, " cannot end: another rank gave up"));
    if (now_ns() - since_ns > PATIENCE_NS) throw Failure(TITAN_STATUS_COMMUNICATION, text(what, " did not end in time"));
  }
  void give_up(const char*) noexcept override { board.gave_up = 1; }
  /// Waits for all.
  void meet() {
    const int round = board.arrived++ / size_;
    const uint64_t begun = now_ns();
    while (board.arrived / size_ == round) check("a meeting", begun), std::this_thread::yield();
  }

 private:
  const int rank_, size_;

 public:
  Board& board;
};

constexpr int64_t BEFORE_NCCL = 6;  // calls of the runtime that Gpu makes first

/// One process, with its GPU: an arena, of which the first half is for what comes in.
struct Gpu {
  Ranks& ranks;
  cudaStream_t compute = nullptr, comm = nullptr;
  cudaEvent_t event = nullptr;
  char* arena = nullptr;
  std::unique_ptr<Collectives> collectives;

  Gpu(Ranks& ranks, std::vector<std::vector<int>> groups, Play how = {}) : ranks(ranks) {
    how.seed += static_cast<uint64_t>(ranks.rank());
    play(how);
    void* memory = nullptr;
    cudaMalloc(&memory, ARENA);
    arena = static_cast<char*>(memory);
    cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&comm, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaMemsetAsync(arena, 0, ARENA, comm);
    cudaStreamSynchronize(comm);
    collectives = cuda::open_collectives(ranks, {std::move(groups), arena, ARENA});
  }
  ~Gpu() {
    collectives.reset();
    cudaEventDestroy(event);
    cudaStreamDestroy(compute);
    cudaStreamDestroy(comm);
    cudaFree(arena);
    EXPECT(left() == 0);
  }
  template <class T> T* put(const std::vector<T>& values, uint64_t at) const {
    cudaMemcpyAsync(arena + at, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, comm);
    return reinterpret_cast<T*>(arena + at);
  }
  template <class T> std::vector<T> get(const T* from, size_t n) const {
    std::vector<T> values(n);
    cudaMemcpyAsync(values.data(), from, n * sizeof(T), cudaMemcpyDeviceToHost, comm);
    return values;
  }
  bool works() const { return cudaStreamSynchronize(comm) == cudaSuccess && collectives->error().empty(); }
};

std::vector<int> first(int size) {
  std::vector<int> ranks;
  for (int r = 0; r < size; r++) ranks.push_back(r);
  return ranks;
}

/// Runs body(ranks) in a process for each rank; all have to end well, without a failed EXPECT.
template <class Body> void in_processes(int size, Body body) {
  void* shared = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  std::fflush(stdout);
  std::vector<pid_t> children;
  for (int rank = 0; rank < size; rank++) {
    const pid_t child = fork();
    if (child) {
      children.push_back(child);
      continue;
    }
    Ranks ranks(rank, size, *static_cast<Board*>(shared));
    titan::test::failures = 0;
    try {
      body(ranks);
    } catch (...) {
      std::printf("rank %d: %s\n", rank, Failure::caught().what());
      titan::test::failures++;
      ranks.give_up("");
    }
    std::fflush(stdout);
    _exit(titan::test::failures ? 1 : 0);
  }
  for (const pid_t child : children) {
    int status = 0;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
  }
  munmap(shared, sizeof(Board));
}

bool noticed(const char* part) {
  const bool found = played().problem.find(part) != std::string::npos;
  if (!found) std::printf("the problem is \"%s\", expected \"%s\"\n", played().problem.c_str(), part);
  return found;
}

template <class T> comm::Collective collective(titan_comm_kind kind, std::vector<titan_comm_tensor> tensors, uint32_t by = 0) {
  comm::Collective made;
  made.call = {kind, static_cast<uint32_t>(test::dtype_of<T>()), by, static_cast<uint32_t>(tensors.size()), nullptr};
  made.tensors = std::move(tensors);
  return made;
}
titan_comm_tensor pieces(const void* in, void* out, uint64_t outer, uint64_t chunk) { return {in, out, outer, chunk, 0, 0, 0, 0, 0, 0}; }

/// Element i of what a rank has: small integers, whose sums are exact in each dtype.
template <class T> T value(int rank, size_t i) { return T(static_cast<float>(static_cast<int>((static_cast<size_t>(rank) * 7 + i * 5) % 11) - 5)); }
template <class T> std::vector<T> values(int rank, size_t n) {
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
  T* in = gpu.put(values<T>(rank, whole), 0);

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
    T* in = gpu.put(values<T>(gpu.ranks.rank(), whole), 0);
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
    char* const in = gpu.put(values<char>(rank, 100), 0);
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
    int32_t* const in = gpu.put(values<int32_t>(ranks.rank(), ROWS), 0);
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
    float* const in = gpu.put(values<float>(rank, 20), 0);
    for (const size_t group : {0, 1}) gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(in, in, 1, 5), pieces(in + 5, in + 5, 1, 15)}), group, gpu.comm);
    const auto found = gpu.get(in, 20);
    for (size_t i = 0; i < 20; i++) EXPECT(found[i] == combined<float>(4, i, false));
    EXPECT(gpu.works());
  });
}

void collectives_of_a_graph_run_whenever_it_is_launched() {
  in_processes(2, [](Ranks& ranks) {
    Gpu gpu(ranks, {first(2)});
    float* const in = gpu.put(values<float>(ranks.rank(), 8), 0);
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

/// Runs body(gpu) on two ranks, and expects that each notices a problem.
template <class Body> void planted(const char* problem, Body body) {
  in_processes(2, [&](Ranks& ranks) {
    Gpu gpu(ranks, {first(2)});
    float* const in = gpu.put(values<float>(ranks.rank(), 16), 0);
    cudaStreamSynchronize(gpu.comm);
    try {
      body(gpu, in);
      EXPECT(!gpu.works());
    } catch (const Failure&) {  // a call was refused
    }
    EXPECT(noticed(problem));
    gpu.collectives->abort();
  });
}

void an_event_left_out_around_a_collective_is_noticed() {
  for (const bool waits : {false, true}) {
    in_processes(2, [&](Ranks& ranks) {
      Gpu gpu(ranks, {first(2)});
      cudaMemsetAsync(gpu.arena, 0, 64, gpu.compute);
      cudaEventRecord(gpu.event, gpu.compute);
      if (waits) cudaStreamWaitEvent(gpu.comm, gpu.event, 0);
      try {
        gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(gpu.arena, gpu.arena, 1, 16)}), 0, gpu.comm);
      } catch (const Failure& failure) {
        EXPECT(std::strstr(failure.what(), "NCCL failed in a launch: unhandled cuda error; "));
      }
      EXPECT(gpu.works() == waits);
      EXPECT(waits ? played().problem.empty() : noticed("ncclAllReduce reads what memset writes on another stream, and nothing orders them"));
      gpu.collectives->abort();
    });
  }
  planted("memset writes what ncclAllReduce reads on another stream", [](Gpu& gpu, float* in) {
    gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(in, in, 1, 16)}), 0, gpu.comm);
    cudaMemsetAsync(in, 0, 64, gpu.compute);
  });
}

void calls_that_differ_between_ranks_are_named() {
  const auto reduce = [](Gpu& gpu, float* in, uint64_t n, uint32_t by = 0) { gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(in, in, 1, n)}, by), 0, gpu.comm); };
  const auto gather = [](Gpu& gpu, float* in) { gpu.collectives->launch(collective<float>(titan_comm_all_gather, {pieces(in, gpu.arena + ARENA / 2, 1, 2)}), 0, gpu.comm); };
  planted("ncclAllReduce of 5 ncclFloat32 by ncclSum", [&](Gpu& gpu, float* in) { reduce(gpu, in, gpu.ranks.rank() ? 5 : 4); });
  planted("ncclAllReduce of 4 ncclFloat32 by ncclMax", [&](Gpu& gpu, float* in) { reduce(gpu, in, 4, gpu.ranks.rank() == 1); });
  planted("ncclAllReduce of 4 ncclInt32 by ncclSum", [&](Gpu& gpu, float* in) {
    if (gpu.ranks.rank()) gpu.collectives->launch(collective<int32_t>(titan_comm_all_reduce, {pieces(in, in, 1, 4)}), 0, gpu.comm);
    else reduce(gpu, in, 4);
  });
  planted("ncclAllGather of 8 ncclUint8", [&](Gpu& gpu, float* in) {  // in another order
    for (const int turn : {0, 1}) turn == gpu.ranks.rank() ? reduce(gpu, in, 4) : gather(gpu, in);
  });
}

void a_message_that_is_not_as_long_as_expected_is_noticed() {
  in_processes(2, [](Ranks& ranks) {
    Gpu gpu(ranks, {first(2)});
    const bool sends = !ranks.rank();
    const titan_comm_tensor tensor = {sends ? gpu.arena : nullptr, sends ? nullptr : gpu.arena, 1, sends ? 4u : 8u, 0, 0, 0, 0, 0, 1};
    gpu.collectives->launch(collective<char>(titan_comm_exchange, {tensor}), 0, gpu.comm);
    EXPECT(gpu.works() == sends);  // who sends does not know
    EXPECT(sends || noticed("rank 1 is at ncclRecv of 8 ncclUint8, rank 0 at ncclSend of 4 ncclUint8"));
    gpu.collectives->abort();
  });
}

/// A communicator of two ranks by NCCL's own functions, of which a case makes wrong use.
struct Raw {
  Ranks& ranks;
  ncclComm_t comm = nullptr;
  explicit Raw(Ranks& ranks) : ranks(ranks) {
    ncclUniqueId id = {}, all[2];
    if (!ranks.rank()) ncclGetUniqueId(&id);
    ranks.gather(&id, all, sizeof id);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    EXPECT(ncclCommInitRankConfig(&comm, 2, all[0], ranks.rank(), &config) == ncclInProgress);
    EXPECT(settled() == ncclSuccess);
  }
  ncclResult_t settled() const {
    for (ncclResult_t state = ncclInProgress;;)
      if (ncclCommGetAsyncError(comm, &state) != ncclSuccess || state != ncclInProgress) return state;
      else std::this_thread::yield();
  }
};

template <class Body> void misused(const char* problem, Body body) {
  in_processes(2, [&](Ranks& ranks) {
    Gpu gpu(ranks, {});
    Raw raw(ranks);
    body(gpu, raw, reinterpret_cast<float*>(gpu.arena));
    EXPECT(noticed(problem));
    ranks.meet();
    play({});  // what is left of this is given back
    ncclCommAbort(raw.comm);
  });
}

void what_nccl_does_not_take_is_refused() {
  misused("a communicator is used that was destroyed or aborted", [](Gpu& gpu, Raw& raw, float* in) {
    EXPECT(ncclCommAbort(raw.comm) == ncclSuccess && ncclAllReduce(in, in, 4, ncclFloat32, ncclSum, raw.comm, gpu.comm) == ncclInvalidArgument);
  });
  misused("a communicator is used while it is in progress", [](Gpu& gpu, Raw& raw, float* in) {
    while (ncclAllReduce(in, in, 4, ncclFloat32, ncclSum, raw.comm, gpu.comm) != ncclInvalidUsage) {}
  });
  misused("a group has not ended", [](Gpu& gpu, Raw& raw, float* in) {
    ncclResult_t state;
    ncclGroupStart();
    ncclAllReduce(in, in, 4, ncclFloat32, ncclSum, raw.comm, gpu.comm);
    EXPECT(ncclCommGetAsyncError(raw.comm, &state) == ncclInvalidUsage);
    ncclGroupEnd();
  });
  misused("a group ends that has not begun", [](Gpu&, Raw&, float*) { EXPECT(ncclGroupEnd() == ncclInvalidUsage); });
  misused("a group has more than 2048 calls", [](Gpu& gpu, Raw& raw, float* in) {
    ncclGroupStart();
    for (int i = 0; i < 2048; i++) EXPECT(ncclSend(in, 1, ncclUint8, 0, raw.comm, gpu.comm) == ncclSuccess);
    EXPECT(ncclSend(in, 1, ncclUint8, 0, raw.comm, gpu.comm) == ncclInvalidUsage && ncclGroupEnd() == ncclInvalidUsage);
  });
  misused("a buffer is not aligned", [](Gpu& gpu, Raw& raw, float* in) { EXPECT(ncclAllReduce(reinterpret_cast<char*>(in) + 2, in, 4, ncclFloat32, ncclSum, raw.comm, gpu.comm) == ncclInvalidArgument); });
  misused("a buffer is null", [](Gpu& gpu, Raw& raw, float* in) { EXPECT(ncclAllGather(nullptr, in, 4, ncclUint8, raw.comm, gpu.comm) == ncclInvalidArgument); });
  misused("a peer is no rank", [](Gpu& gpu, Raw& raw, float* in) { EXPECT(ncclSend(in, 4, ncclUint8, 2, raw.comm, gpu.comm) == ncclInvalidArgument); });
  misused("ncclUint8 is not added", [](Gpu& gpu, Raw& raw, float* in) { EXPECT(ncclAllReduce(in, in, 4, ncclUint8, ncclSum, raw.comm, gpu.comm) == ncclInvalidArgument); });
  misused("a buffer is not registered, and others are", [](Gpu& gpu, Raw& raw, float* in) {
    void* handle = nullptr;
    EXPECT(ncclCommRegister(raw.comm, in, 64, &handle) == ncclSuccess && ncclAllReduce(in, in + 16, 16, ncclFloat32, ncclSum, raw.comm, gpu.comm) == ncclInvalidUsage);
    EXPECT(ncclCommDeregister(raw.comm, handle) == ncclSuccess);
  });
}

/// Nothing is in the stream while the communicator is in progress: an event that is recorded then is no sign of it.
void an_event_that_is_recorded_while_a_call_is_in_progress_is_too_early() {
  misused("memset writes what ncclAllReduce reads on another stream", [](Gpu& gpu, Raw& raw, float* in) {
    EXPECT(ncclAllReduce(in, in, 16, ncclFloat32, ncclSum, raw.comm, gpu.comm) == ncclInProgress);
    cudaEventRecord(gpu.event, gpu.comm);
    EXPECT(raw.settled() == ncclSuccess);
    cudaStreamWaitEvent(gpu.compute, gpu.event, 0);
    cudaMemsetAsync(in, 0, 64, gpu.compute);
  });
}

void a_communicator_outlives_the_graphs_that_hold_its_calls() {
  in_processes(2, [](Ranks& ranks) {
    Gpu gpu(ranks, {first(2)});
    cudaGraph_t graph = nullptr;
    cudaStreamBeginCapture(gpu.comm, cudaStreamCaptureModeThreadLocal);
    gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(gpu.arena, gpu.arena, 1, 8)}), 0, gpu.comm);
    EXPECT(cudaStreamEndCapture(gpu.comm, &graph) == cudaSuccess);
    gpu.collectives.reset();
    EXPECT(noticed("a communicator is destroyed before the graphs that hold its calls: NCCL would hang"));
    cudaGraphDestroy(graph);
  });
}

void a_communicator_is_not_made_in_a_capture() {
  in_processes(2, [](Ranks& ranks) {
    Gpu gpu(ranks, {});
    cudaGraph_t graph = nullptr;
    cudaStreamBeginCapture(gpu.comm, cudaStreamCaptureModeThreadLocal);
    std::string told;
    try {
      cuda::open_collectives(ranks, {{first(2)}, gpu.arena, ARENA});
    } catch (const Failure& failure) {
      told = failure.what();
    }
    EXPECT(told.find("NCCL failed in ncclCommInitRankConfig") == 0 && told.find("unhandled cuda error") != std::string::npos);
    EXPECT(cudaStreamEndCapture(gpu.comm, &graph) == cudaErrorStreamCaptureInvalidated);
  });
}

/// Rank 1 gives up instead. What keeps the stream of rank 0 waiting ends when its communicators are aborted.
void who_waits_for_a_rank_that_does_not_come_can_abort() {
  in_processes(2, [](Ranks& ranks) {
    Gpu gpu(ranks, {first(2)});
    if (ranks.rank()) return gpu.collectives->abort();
    gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(gpu.arena, gpu.arena, 1, 8)}), 0, gpu.comm);
    cudaEventRecord(gpu.event, gpu.comm);
    for (int asked = 0; asked < 1000; asked++) EXPECT(cudaEventQuery(gpu.event) == cudaErrorNotReady);
    gpu.collectives->abort();
    EXPECT(cudaStreamSynchronize(gpu.comm) == cudaSuccess && cudaEventQuery(gpu.event) == cudaSuccess);
    std::string told;
    try {
      gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(gpu.arena, gpu.arena, 1, 8)}), 0, gpu.comm);
    } catch (const Failure& failure) {
      told = failure.what();
    }
    EXPECT(told == "collectives of this rank were aborted; expected: none behind that");
  });
}

/// At the start NCCL itself waits for the others.
void who_waits_for_a_rank_at_the_start_is_told_that_it_gave_up() {
  in_processes(2, [](Ranks& ranks) {
    std::string told;
    try {
      Gpu gpu(ranks, {{0, 1}}, {.fails = ranks.rank() ? BEFORE_NCCL : -1});
    } catch (const Failure& failure) {
      told = failure.what();
      ranks.give_up("");
    }
    if (ranks.rank()) EXPECT(told.find("NCCL failed in ncclCommInitRankConfig") == 0);
    else EXPECT(told == "joining the GPUs of a group cannot end: another rank gave up");
  });
}

/// Ranks that list a group in different orders have no id in common.
void ranks_in_another_order_are_told_apart() {
  in_processes(3, [](Ranks& ranks) {
    std::string told;
    try {
      Gpu gpu(ranks, {ranks.rank() == 2 ? std::vector<int>{0, 2, 1} : first(3)});
    } catch (const Failure& failure) {
      told = failure.what();
      ranks.give_up("");
    }
    if (ranks.rank() == 2) EXPECT(told.find("rank 0 has no group that rank 2 has; expected: the same graph on all ranks") == 0);
    else EXPECT(told == "joining the GPUs of a group cannot end: another rank gave up");
  });
}

/// Each call of rank 0 fails in turn: it tells so once, the other learns of it, and nothing of either is left.
void each_call_that_fails_is_told() {
  bool failed = true;
  std::string calls;
  for (int64_t n = BEFORE_NCCL; failed; n++) {
    void* shared = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    auto* const name = static_cast<char*>(shared);
    in_processes(2, [&](Ranks& ranks) {
      std::string told;
      try {
        Gpu gpu(ranks, {first(2)}, {.fails = ranks.rank() ? -1 : n});
        gpu.collectives->launch(collective<float>(titan_comm_all_gather, {pieces(gpu.arena, gpu.arena + ARENA / 2, 2, 4)}), 0, gpu.comm);
        bool awaits_others = false;
        for (const uint64_t begun = now_ns(); !gpu.comm->queue.empty();)
          if (!go_on(&awaits_others)) ranks.check("waiting", begun);
        if (const std::string error = gpu.collectives->error(); !error.empty()) throw Failure(TITAN_STATUS_COMMUNICATION, error);
        EXPECT(played().last_call.empty());  // else it has kept an error to itself; behind this, all has been done
      } catch (const Failure& failure) {
        told = failure.what();
        ranks.give_up("");
      }
      if (ranks.rank()) return;
      std::strcpy(name, played().last_call.c_str());
    });
    failed = *name;
    calls += text(name, " ");
    munmap(shared, 4096);
  }
  for (const char* name : {"ncclGetUniqueId", "ncclCommInitRankConfig", "ncclCommGetAsyncError", "ncclCommRegister", "ncclGroupStart", "ncclAllGather", "ncclGroupEnd", "ncclCommFinalize", "ncclCommDestroy"})
    EXPECT(calls.find(name) != std::string::npos);
}

}  // namespace

int main() {
#ifdef __linux__  // where memory without a name is shared
  for (const int size : {2, 3, 4}) every_collective_means_what_it_says(size);
  exchanges_bring_each_tensor_to_whom_it_is_for();
  what_processes_share_is_given_back();
  more_rows_than_a_group_takes_are_several_groups();
  ranks_exchange_in_several_groups();
  collectives_of_a_graph_run_whenever_it_is_launched();
  an_event_left_out_around_a_collective_is_noticed();
  calls_that_differ_between_ranks_are_named();
  a_message_that_is_not_as_long_as_expected_is_noticed();
  what_nccl_does_not_take_is_refused();
  an_event_that_is_recorded_while_a_call_is_in_progress_is_too_early();
  a_communicator_outlives_the_graphs_that_hold_its_calls();
  a_communicator_is_not_made_in_a_capture();
  who_waits_for_a_rank_that_does_not_come_can_abort();
  who_waits_for_a_rank_at_the_start_is_told_that_it_gave_up();
  ranks_in_another_order_are_told_apart();
  each_call_that_fails_is_told();
#endif
  return titan::test::finish("cuda_nccl");
}
