// Several GPUs, each played by a process of its own, that exchange by the NCCL which is played too.
#pragma once
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "../clock.h"
#include "../cuda/collectives.h"
#include "../cuda/host/machine.h"
#include "../failure.h"
#include "collective_calls.h"

namespace titan::test {

using namespace titan::cuda::host;
using titan::cuda::Collectives;

constexpr int MOST = 4;
constexpr unsigned MOST_SECONDS = 120;  // of a process
constexpr uint64_t ARENA = 1 << 20, PATIENCE_NS = uint64_t{60} * 1'000'000'000;

/// What the processes of a case see of each other.
struct Board {
  std::atomic<int> arrived, gave_up;
  char told[MOST][4096];
};

class Ranks final : public comm::Ranks {
 public:
  Ranks(int rank, int size, Board& board) : rank_(rank), size_(size), board_(board) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void gather(const void* mine, void* all, uint64_t bytes) override {
    EXPECT(bytes <= sizeof board_.told[0]);
    std::memcpy(board_.told[rank_], mine, bytes);
    meet();
    for (int r = 0; r < size_; r++) std::memcpy(static_cast<char*>(all) + static_cast<uint64_t>(r) * bytes, board_.told[r], bytes);
    meet();
  }
  std::vector<comm::Group*> agree(const std::vector<comm::Collective>&) override { return {}; }
  void launched(comm::Launched&) override {}
  void ended(const comm::Launched&) override {}
  void check(const comm::Launched&, uint64_t, bool, const std::string&) override {}
  void check(const char* what, uint64_t since_ns) override {
    if (board_.gave_up) throw Failure(TITAN_STATUS_COMMUNICATION, text(what, " cannot end: another rank gave up"));
    if (now_ns() - since_ns > PATIENCE_NS) throw Failure(TITAN_STATUS_COMMUNICATION, text(what, " did not end in time"));
  }
  void give_up(const char*) noexcept override { board_.gave_up = 1; }
  /// Waits for all.
  void meet() {
    const int round = board_.arrived++ / size_;
    const uint64_t begun = now_ns();
    for (;; std::this_thread::yield()) {
      const bool gave_up = board_.gave_up;  // whoever gives up behind this meeting has been at it
      if (board_.arrived / size_ != round) return;
      if (gave_up || now_ns() - begun > PATIENCE_NS) throw Failure(TITAN_STATUS_COMMUNICATION, "the others do not come");
    }
  }

 private:
  const int rank_, size_;
  Board& board_;
};

constexpr int64_t BEFORE_NCCL = 7;  // calls of the runtime that Gpu makes first

/// One process, with its GPU: an arena, of which the first half is for what comes in.
struct Gpu {
  Ranks& ranks;
  cudaStream_t compute = nullptr, comm = nullptr;
  cudaEvent_t event = nullptr;
  cuda::Arena memory{nullptr, nullptr};
  char* arena = nullptr;
  std::unique_ptr<Collectives> collectives;

  Gpu(Ranks& ranks, std::vector<std::vector<int>> groups, Play how = {}) : ranks(ranks) {
    how.seed += static_cast<uint64_t>(ranks.rank());
    play(how);
    cudaSetDevice(1 + ranks.rank());
    memory = cuda::make_exchanged_arena(ARENA);
    arena = static_cast<char*>(memory.get());
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
    memory.reset();
    EXPECT(left() == 0);
  }
  template <class T> T* put(const std::vector<T>& values, uint64_t at) const {
    cudaMemcpyAsync(arena + at, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, comm);
    cudaStreamSynchronize(comm);
    return reinterpret_cast<T*>(arena + at);
  }
  template <class T> std::vector<T> get(const T* from, size_t n) const {
    std::vector<T> values(n);
    cudaMemcpyAsync(values.data(), from, n * sizeof(T), cudaMemcpyDeviceToHost, comm);
    cudaStreamSynchronize(comm);
    return values;
  }
  bool works() const { return cudaStreamSynchronize(comm) == cudaSuccess && collectives->error().empty(); }
};

inline std::vector<int> first(int size) {
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
    alarm(MOST_SECONDS);  // what hangs ends
    Ranks ranks(rank, size, *static_cast<Board*>(shared));
    failures = 0;
    try {
      body(ranks);
    } catch (...) {
      std::printf("rank %d: %s\n", rank, Failure::caught().what());
      failures++;
      ranks.give_up("");
    }
    std::fflush(stdout);
    _exit(failures ? 1 : 0);
  }
  for (const pid_t child : children) {
    int status = 0;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
  }
  munmap(shared, sizeof(Board));
}

inline bool noticed(const char* part) {
  const bool found = played().problem.find(part) != std::string::npos;
  if (!found) std::printf("the problem is \"%s\", expected \"%s\"\n", played().problem.c_str(), part);
  return found;
}

template <class T> comm::Collective collective(titan_comm_kind kind, std::vector<titan_comm_tensor> tensors, uint32_t by = 0) {
  comm::Collective made;
  made.call = {kind, static_cast<uint32_t>(dtype_of<T>()), by, static_cast<uint32_t>(tensors.size()), nullptr};
  made.tensors = std::move(tensors);
  return made;
}

}  // namespace titan::test
