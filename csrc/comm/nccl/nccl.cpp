// Collectives by NCCL, to which libtitan_cuda is linked: to open it takes some milliseconds, also for one GPU, and spares a module of its own.
//
// - A group of ranks has a communicator, which it makes from an id of its first rank. The ids travel through the world (MPI, Gloo).
// - Communicators do not block: NCCL then says that something is in progress, and whoever waits asks it again and again, as well as whether all others are
//   there. So what never comes ends by a time-out, at the start and where NCCL connects GPUs at their first message. What is in no graph
//   is launched by a thread of NCCL's, which takes longer; how long, only a GPU can tell.
// - Tensors of one collective are one group of calls, which NCCL makes one kernel of. What lies in rows (`outer` > 1) takes a call for each row, or in an
//   all_to_all a call for each run of each member; NCCL takes 2048 calls in a group, so what has more rows becomes several groups. Rows are those of a cut
//   along an inner dim: in a mesh these are activations along their sequence, with a row for each sequence of the batch, and few.
// - Sums are added in NCCL's order, which depends on the GPUs and their links, and bf16 is rounded at each addition. They are the same bits in every run on the
//   same machines, but not those of CPUs. So NVLink SHARP is off, whose switches may add in another order in each call; NCCL_NVLS_ENABLE=1 turns it on. A
//   maximum of NaN and a number may be the number.
// - NCCL takes memory for a communicator's buffers when GPUs first exchange, not when they join: an arena that leaves too little for that is found out in the
//   first step, by an error that says how much was free.
// - The arena is NCCL's own memory, and registered with each communicator: NCCL may then copy between GPUs without buffers in between. What cudaMalloc gives it
//   does not share with GPUs of other processes, registered or not (NCCL_LEGACY_CUDA_REGISTER). For calls in graphs NCCL registers by itself.
//   It takes another number of channels for what is registered, so calls in graphs and others would add in different orders if these were not.
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "../../clock.h"
#include "../../cuda/collectives.h"
#include "../../failure.h"
#include "nccl_api.h"

namespace titan::cuda {
namespace {

constexpr size_t MOST_CALLS = 2048;  // of a group

void check_nccl(ncclResult_t result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  size_t free = 0, total = 0;
  const bool may_be_memory = result == ncclUnhandledCudaError && cudaMemGetInfo(&free, &total) == cudaSuccess;
  throw Failure(TITAN_STATUS_COMMUNICATION, text("NCCL failed in ", what, ": ", ncclGetErrorString(result), "; ", ncclGetLastError(nullptr), "; expected: GPUs that reach each other",
                                                 may_be_memory ? text(", and memory for NCCL's buffers beside the arena, where ", free, " bytes are free") : "", "; fix: ",
                                                 may_be_memory ? "where these are few, a smaller batch or model, or more activation checkpointing; " : "",
                                                 "NCCL_DEBUG=INFO in the environment of a new run says more"));
}
#define TITAN_NCCL_CHECK(call) check_nccl(call, #call)

struct Communicator {
  std::vector<int> ranks;
  int member = 0;  // this rank in the group
  ncclComm_t handle = nullptr;
  void* registration = nullptr;
};

/// What each rank tells the others: for each group of which it is the first, how many ranks it has, these, and the id.
struct Told {
  static constexpr size_t ID_WORDS = sizeof(ncclUniqueId) / sizeof(int32_t);
  std::vector<int32_t> words;

  void add(const std::vector<int>& ranks, const ncclUniqueId& id) {
    words.push_back(static_cast<int32_t>(ranks.size()));
    words.insert(words.end(), ranks.begin(), ranks.end());
    words.resize(words.size() + ID_WORDS);
    std::memcpy(words.data() + words.size() - ID_WORDS, &id, sizeof id);
  }
  bool find(const std::vector<int>& ranks, ncclUniqueId* id) const {
    for (size_t at = 0; at < words.size() && words[at];) {
      const auto size = static_cast<size_t>(words[at++]);
      const bool same = size == ranks.size() && std::equal(ranks.begin(), ranks.end(), words.begin() + static_cast<ptrdiff_t>(at));
      if (same) return std::memcpy(id, words.data() + at + size, sizeof *id), true;
      at += size + ID_WORDS;
    }
    return false;
  }
};

class Nccl final : public Collectives {
 public:
  explicit Nccl(comm::Ranks& ranks) : ranks_(ranks) {}
  ~Nccl() override;
  void join(const Exchange& exchange);
  void launch(const comm::Collective& collective, size_t group, cudaStream_t stream) override;
  std::string error() override;
  void abort() noexcept override;

 private:
  class Calls;
  std::vector<Told> tell_ids();
  /// Asks until what was begun is no longer in progress.
  void settle(Communicator& communicator, const char* what);
  void leave();

  comm::Ranks& ranks_;
  std::vector<Communicator> communicators_;
  std::vector<Communicator*> in_order_;  // the same on all ranks, in whichever order a rank's program names its groups
};

/// The calls for a collective: in one group, or in several where NCCL takes no more. All ranks must cut alike.
class Nccl::Calls {
 public:
  Calls(Nccl& nccl, Communicator& communicator, cudaStream_t stream) : communicator(communicator), stream(stream), nccl_(nccl) {}
  ~Calls() {
    if (used_) (void)ncclGroupEnd();  // a call was refused
  }
  Calls(const Calls&) = delete;

  /// So many calls follow, which have to be in one group.
  void begin(size_t calls) {
    if (used_ + calls > MOST_CALLS) end();
    if (!used_) TITAN_NCCL_CHECK(ncclGroupStart());
    used_ += calls;
  }
  void end() {
    if (!used_) return;
    used_ = 0;
    TITAN_NCCL_CHECK(ncclGroupEnd());
    nccl_.settle(communicator, "a launch");
  }
  void send(const char* in, uint64_t bytes, int to) { TITAN_NCCL_CHECK(ncclSend(in, bytes, ncclUint8, to, communicator.handle, stream)); }
  void receive(char* out, uint64_t bytes, int from) { TITAN_NCCL_CHECK(ncclRecv(out, bytes, ncclUint8, from, communicator.handle, stream)); }

  Communicator& communicator;
  const cudaStream_t stream;

 private:
  Nccl& nccl_;
  size_t used_ = 0;
};

/// What is not added travels as bytes.
ncclDataType_t type_of(const titan_comm_call& call) {
  if (call.kind != titan_comm_reduce_scatter && call.kind != titan_comm_all_reduce) return ncclUint8;
  switch (DType{call.dtype}) {
    case DType::f32: return ncclFloat32;
    case DType::f64: return ncclFloat64;
    case DType::bf16: return ncclBfloat16;
    case DType::i32: return ncclInt32;
    default: throw Failure(TITAN_STATUS_INVALID_PROGRAM, text(name_of(DType{call.dtype}), " cannot be added between GPUs; expected: f32, f64, bf16 or i32"));
  }
}

Nccl::~Nccl() {
  try {
    leave();
  } catch (...) {
    abort();  // somebody does not come: that has been told
  }
}

std::vector<Told> Nccl::tell_ids() {
  Told own;
  for (const Communicator& communicator : communicators_) {
    if (communicator.member) continue;
    ncclUniqueId id;
    TITAN_NCCL_CHECK(ncclGetUniqueId(&id));
    own.add(communicator.ranks, id);
  }
  const auto count = own.words.size();
  std::vector<size_t> counts(static_cast<size_t>(ranks_.size()));
  ranks_.gather(&count, counts.data(), sizeof count);
  const size_t most = *std::max_element(counts.begin(), counts.end());
  own.words.resize(most);
  std::vector<int32_t> words(most * counts.size());
  if (most) ranks_.gather(own.words.data(), words.data(), most * sizeof(int32_t));
  std::vector<Told> all;
  for (size_t r = 0; r < counts.size(); r++) all.push_back({{words.begin() + static_cast<ptrdiff_t>(r * most), words.begin() + static_cast<ptrdiff_t>((r + 1) * most)}});
  return all;
}

void Nccl::join(const Exchange& exchange) {
  for (const auto& ranks : exchange.groups) communicators_.push_back({ranks, static_cast<int>(std::find(ranks.begin(), ranks.end(), ranks_.rank()) - ranks.begin())});
  for (Communicator& communicator : communicators_) in_order_.push_back(&communicator);
  std::sort(in_order_.begin(), in_order_.end(), [](const Communicator* a, const Communicator* b) { return a->ranks < b->ranks; });
  const std::vector<Told> told = tell_ids();
  for (Communicator* const one : in_order_) {  // else a rank would wait in one group for a rank that waits for it in another
    Communicator& communicator = *one;
    ncclUniqueId id;
    if (!told[static_cast<size_t>(communicator.ranks[0])].find(communicator.ranks, &id))
      throw Failure(TITAN_STATUS_COMMUNICATION, text("rank ", communicator.ranks[0], " has no group that rank ", ranks_.rank(), " has; expected: the same graph on all ranks; fix: start all with the same configuration and version"));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ranks_.check("joining the GPUs of a group", now_ns());  // an id is of no use any more where the rank that made it has ended
    TITAN_NCCL_CHECK(ncclCommInitRankConfig(&communicator.handle, static_cast<int>(communicator.ranks.size()), id, communicator.member, &config));
    settle(communicator, "joining the GPUs of a group");
    if (!exchange.arena_bytes) continue;
    TITAN_NCCL_CHECK(ncclCommRegister(communicator.handle, exchange.arena, exchange.arena_bytes, &communicator.registration));
  }
}

void Nccl::settle(Communicator& communicator, const char* what) {
  const uint64_t begun = now_ns();
  ncclResult_t state = ncclInProgress;
  for (uint64_t asked = 1;; asked++) {
    TITAN_NCCL_CHECK(ncclCommGetAsyncError(communicator.handle, &state));
    if (state != ncclInProgress) return check_nccl(state, what);
    if (asked < 1000) sched_yield();
    else std::this_thread::sleep_for(std::chrono::microseconds(50));
    if (asked % 64 == 0) ranks_.check(what, begun);
  }
}

void Nccl::launch(const comm::Collective& collective, size_t group, cudaStream_t stream) {
  Communicator& communicator = communicators_[group];
  if (!communicator.handle) throw Failure(TITAN_STATUS_COMMUNICATION, "collectives of this rank were aborted; expected: none behind that");
  const auto size = static_cast<int>(communicator.ranks.size());
  const auto members = static_cast<uint64_t>(size);
  const uint32_t kind = collective.call.kind;
  const uint64_t element_bytes = size_of(DType{collective.call.dtype});
  const ncclDataType_t type = type_of(collective.call);
  const ncclRedOp_t op = collective.call.by ? ncclMax : ncclSum;
  Calls calls(*this, communicator, stream);
  for (const titan_comm_tensor& tensor : collective.tensors) {
    const auto* in = static_cast<const char*>(tensor.in);
    auto* out = static_cast<char*>(tensor.out);
    const uint64_t bytes = tensor.chunk * element_bytes;
    if (kind == titan_comm_exchange) {
      calls.begin(2);  // who has nothing to do counts them too
      if (bytes && in) calls.send(in, bytes, static_cast<int>(tensor.to));
      if (bytes && out) calls.receive(out, bytes, static_cast<int>(tensor.from));
      continue;
    }
    for (uint64_t row = 0; bytes && row < tensor.outer; row++) {
      switch (kind) {
        case titan_comm_all_gather:
          calls.begin(1);
          TITAN_NCCL_CHECK(ncclAllGather(in + row * bytes, out + row * members * bytes, bytes, type, communicator.handle, stream));
          break;
        case titan_comm_reduce_scatter:
          calls.begin(1);
          TITAN_NCCL_CHECK(ncclReduceScatter(in + row * members * bytes, out + row * bytes, tensor.chunk, type, op, communicator.handle, stream));
          break;
        case titan_comm_all_reduce:
          calls.begin(1);
          TITAN_NCCL_CHECK(ncclAllReduce(in, out, tensor.chunk, type, op, communicator.handle, stream));
          break;
        case titan_comm_ring_shift:
          calls.begin(2);
          calls.send(in + row * tensor.in_step * element_bytes, bytes, (communicator.member + 1) % size);
          calls.receive(out + row * tensor.out_step * element_bytes, bytes, (communicator.member + size - 1) % size);
          break;
        default:  // titan_comm_all_to_all: each member's runs, this one's own too
          calls.begin(2 * members);
          for (uint64_t m = 0; m < members; m++) {
            const auto place = [&](uint64_t run) { return (row * tensor.chunk / run * run * members + row * tensor.chunk % run + m * run) * element_bytes; };
            calls.send(in + place(tensor.in_run), bytes, static_cast<int>(m));
            calls.receive(out + place(tensor.out_run), bytes, static_cast<int>(m));
          }
      }
    }
  }
  calls.end();
}

std::string Nccl::error() {
  for (const Communicator& communicator : communicators_) {
    ncclResult_t state = ncclSuccess;
    if (!communicator.handle) continue;
    const ncclResult_t result = ncclCommGetAsyncError(communicator.handle, &state);
    for (const ncclResult_t told : {result, state})
      if (told != ncclSuccess && told != ncclInProgress) return text("NCCL: ", ncclGetErrorString(told), "; ", ncclGetLastError(communicator.handle));
  }
  return "";
}

/// Each communicator is aborted by a thread of its own: NCCL frees memory then, for which the GPU waits until all kernels have ended, and those of the others
/// end only when these are aborted too. A thread begins with GPU 0, and NCCL would return to that at the end: this would make a context there, in the memory
/// of another rank.
void Nccl::abort() noexcept {
  int gpu = 0;
  (void)cudaGetDevice(&gpu);
  std::vector<std::thread> threads;
  for (Communicator& communicator : communicators_)
    if (ncclComm_t handle = std::exchange(communicator.handle, nullptr)) threads.emplace_back([handle, gpu] { (void)cudaSetDevice(gpu), (void)ncclCommAbort(handle); });
  for (std::thread& thread : threads) thread.join();
}

void Nccl::leave() {
  for (Communicator* const one : in_order_) {
    Communicator& communicator = *one;
    if (!communicator.handle) continue;
    if (communicator.registration) TITAN_NCCL_CHECK(ncclCommDeregister(communicator.handle, communicator.registration));
    TITAN_NCCL_CHECK(ncclCommFinalize(communicator.handle));
    settle(communicator, "leaving the GPUs of a group");
    TITAN_NCCL_CHECK(ncclCommDestroy(std::exchange(communicator.handle, nullptr)));
  }
}

}  // namespace

Arena make_exchanged_arena(uint64_t bytes) {
  void* memory = nullptr;
  TITAN_NCCL_CHECK(ncclMemAlloc(&memory, bytes));
  return {memory, [](void* arena) { (void)ncclMemFree(arena); }};
}

std::unique_ptr<Collectives> open_collectives(comm::Ranks& ranks, const Exchange& exchange) {
  setenv("NCCL_NVLS_ENABLE", "0", 0);  // NCCL asks the environment once, at its first call
  auto nccl = std::make_unique<Nccl>(ranks);
  try {
    nccl->join(exchange);
  } catch (...) {
    nccl->abort();
    throw;
  }
  return nccl;
}

}  // namespace titan::cuda
