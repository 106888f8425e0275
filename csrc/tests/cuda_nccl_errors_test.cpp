// Errors around collectives that NCCL would leave to chance, or hang at: each is planted, and noticed. And calls of NCCL that fail.
#include "../cuda/host/nccl.h"
#include "several_gpus.h"

using namespace titan;
using namespace titan::test;

namespace {

/// Runs body(gpu) on two ranks, and expects that each notices a problem.
template <class Body> void planted(const char* problem, Body body) {
  in_processes(2, [&](Ranks& ranks) {
    Gpu gpu(ranks, {first(2)});
    float* const in = gpu.put(values<float>(16, ranks.rank()), 0);
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
  misused("memory is registered that ncclMemAlloc did not give", [](Gpu&, Raw& raw, float*) {
    void *memory = nullptr, *handle = nullptr;
    EXPECT(cudaMalloc(&memory, 64) == cudaSuccess && ncclCommRegister(raw.comm, memory, 64, &handle) == ncclInvalidUsage && cudaFree(memory) == cudaSuccess);
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
    else if (!ranks.rank()) EXPECT(told == "joining the GPUs of a group cannot end: another rank gave up");
    else EXPECT(!told.empty());  // the same, or that rank 0 has gone, with whom it was to join
  });
}

/// The arena fits, the buffers that NCCL takes at the first exchange do not.
void what_nccl_has_no_memory_for_is_told() {
  in_processes(2, [](Ranks& ranks) {
    Gpu gpu(ranks, {first(2)}, {.memory_bytes = ARENA + 100});
    std::string told;
    try {
      gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(gpu.arena, gpu.arena, 1, 8)}), 0, gpu.comm);
    } catch (const Failure& failure) {
      told = failure.what();
    }
    EXPECT(told ==
           "NCCL failed in a launch: unhandled cuda error; Failed to CUDA calloc 65536 bytes; expected: GPUs that reach each other, and memory for NCCL's buffers beside the arena, where 100 bytes are free; "
           "fix: where these are few, a smaller batch or model, or more activation checkpointing; NCCL_DEBUG=INFO in the environment of a new run says more");
    gpu.collectives->abort();
  });
}

/// There is memory for the buffers of one.
void a_communicator_gives_its_buffers_back() {
  in_processes(2, [](Ranks& ranks) {
    Gpu gpu(ranks, {}, {.memory_bytes = ARENA + (64 << 10)});
    for (int turn = 0; turn < 2; turn++) {
      gpu.collectives = cuda::open_collectives(ranks, {{first(2)}, gpu.arena, ARENA});
      gpu.collectives->launch(collective<float>(titan_comm_all_reduce, {pieces(gpu.arena, gpu.arena, 1, 8)}), 0, gpu.comm);
      EXPECT(gpu.works());
      gpu.collectives.reset();
    }
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
  what_nccl_has_no_memory_for_is_told();
  a_communicator_gives_its_buffers_back();
  each_call_that_fails_is_told();
#endif
  return finish("cuda_nccl_errors");
}
