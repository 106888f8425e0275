// NCCL, played between processes on CPUs, for tests: host/nccl.h says which functions. "NCCL" in comments is NVIDIA's user guide, with the section. A group of
// calls is two works in its stream: the first brings what others need, when they have taken what came before; the second waits for what others bring, and
// makes the results, with sums in the order of the ranks. So a rank that does not come keeps the stream waiting until the communicator is aborted.
// Refused are, beside what the runtime refuses of any work (nccl.h there, and its memory and order):
//   calls that differ between ranks in kind, count, type or operation, where NCCL would hang or give anything: the error names both
//   what NCCL says is no argument: a communicator that was destroyed, aborted or is in progress, a peer that is none, memory that is not aligned
//   more buffers than there is memory: a communicator takes some when its ranks first exchange
//   a communicator that is destroyed or aborted while a graph holds calls of it: NCCL would wait for that for ever
// All is as for communicators that do not block: nothing is in the stream before ncclCommGetAsyncError has said so.
#ifdef TITAN_TOOLKIT_HEADER
#include <nccl.h>
#else
#include "nccl.h"
#endif
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "../../comm/combine.h"
#include "../../failure.h"
#include "machine.h"
#include "nccl_mail.h"

using namespace titan;
using namespace titan::cuda::host;

namespace {

constexpr size_t MOST_CALLS = 2048;     // of a group (NCCL, Group Calls)
constexpr int MOST_POLLS = 3;           // until something is no longer in progress
constexpr uint64_t BUFFERS = 64 << 10;  // bytes of a communicator

enum Kind : uint32_t { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, SEND, RECEIVE };
constexpr const char* NAMES[] = {"ncclAllReduce", "ncclReduceScatter", "ncclAllGather", "ncclSend", "ncclRecv"};

struct Type {
  const char* name;
  size_t bytes;
  int added_as;  // a DType, or -1: this NCCL does not add it
};
constexpr Type TYPES[] = {{"ncclInt8", 1, -1},   {"ncclUint8", 1, -1},   {"ncclInt32", 4, int(DType::i32)},   {"ncclUint32", 4, -1},             {"ncclInt64", 8, -1},
                          {"ncclUint64", 8, -1}, {"ncclFloat16", 2, -1}, {"ncclFloat32", 4, int(DType::f32)}, {"ncclFloat64", 8, int(DType::f64)}, {"ncclBfloat16", 2, int(DType::bf16)}};

struct Operation {
  Kind kind;
  const void* in;
  void* out;
  size_t count;
  ncclDataType_t type;
  ncclRedOp_t op;
  int peer;

  uint64_t bytes() const { return count * TYPES[type].bytes; }
  bool is_message() const { return kind == SEND || kind == RECEIVE; }
  uint64_t in_bytes(int ranks) const { return kind == RECEIVE ? 0 : kind == REDUCE_SCATTER ? bytes() * static_cast<uint64_t>(ranks) : bytes(); }
  uint64_t out_bytes(int ranks) const { return kind == SEND ? 0 : kind == ALL_GATHER ? bytes() * static_cast<uint64_t>(ranks) : bytes(); }
};

std::string text_of(uint32_t kind, uint64_t count, uint32_t type, uint32_t op) {
  return text(NAMES[kind], " of ", count, " ", TYPES[type].name, kind > REDUCE_SCATTER ? "" : op == ncclMax ? " by ncclMax" : " by ncclSum");
}

/// Calls of one group on one communicator.
struct Unit {
  std::shared_ptr<Mail> mail;
  std::vector<Operation> operations;

  template <class Each> void each_receiver(const Operation& operation, Each each) const {
    for (int r = 0; r < mail->ranks; r++)
      if (operation.is_message() ? operation.kind == SEND && operation.peer == r : true) each(r);
  }
  template <class Each> void each_sender(const Operation& operation, Each each) const {
    for (int r = 0; r < mail->ranks; r++)
      if (operation.is_message() ? operation.kind == RECEIVE && operation.peer == r : true) each(r);
  }
  std::vector<int> receivers() const {
    std::vector<int> list;
    for (const Operation& operation : operations) each_receiver(operation, [&](int r) { if (std::find(list.begin(), list.end(), r) == list.end()) list.push_back(r); });
    return list;
  }
  std::vector<int> senders() const {
    std::vector<int> list;
    for (const Operation& operation : operations) each_sender(operation, [&](int r) { if (std::find(list.begin(), list.end(), r) == list.end()) list.push_back(r); });
    return list;
  }

  bool may_bring() const {
    const auto to = receivers();
    return mail->aborted || std::all_of(to.begin(), to.end(), [&](int r) { return mail->may_send(r); });
  }
  std::string bring() const {
    if (mail->aborted) return "";
    Letter* last[MOST_RANKS] = {};
    bool fits = true;
    for (const Operation& operation : operations)
      each_receiver(operation, [&](int r) {
        Letter* letter = fits ? mail->write(r, last[r], operation.bytes()) : nullptr;
        if (!letter) return void(fits = false);
        last[r] = letter;
        letter->call = operation.kind, letter->dtype = operation.type, letter->op = operation.op, letter->count = operation.count;
        const uint64_t offset = operation.kind == REDUCE_SCATTER ? static_cast<uint64_t>(r) * operation.bytes() : 0;
        std::memcpy(letter + 1, static_cast<const char*>(operation.in) + offset, operation.bytes());
      });
    if (!fits) return "more than the played NCCL carries at a time";
    for (const int r : receivers()) mail->send(r);
    return "";
  }

  bool may_take() const {
    const auto from = senders();
    return mail->aborted || std::all_of(from.begin(), from.end(), [&](int r) { return mail->has_come(r); });
  }
  std::string take() const {
    if (mail->aborted) return "";
    const Letter* next[MOST_RANKS] = {};
    for (const int r : senders()) next[r] = mail->read(r);
    std::string wrong;
    for (const Operation& operation : operations) {
      const char* parts[MOST_RANKS] = {};
      each_sender(operation, [&](int r) {
        const Letter* letter = next[r];
        const std::string own = text_of(operation.kind, operation.count, operation.type, operation.op);
        if (!letter) return void(wrong = text("rank ", mail->rank, " is at ", own, ", for which rank ", r, " has no call in its group"));
        const uint32_t expected = operation.kind == RECEIVE ? SEND : operation.kind;
        if (letter->call != expected || letter->count != operation.count || letter->dtype != static_cast<uint32_t>(operation.type) || letter->op != static_cast<uint32_t>(operation.op))
          return void(wrong = text("rank ", mail->rank, " is at ", own, ", rank ", r, " at ", text_of(letter->call, letter->count, letter->dtype, letter->op), ": NCCL would hang, or give anything"));
        parts[r] = letter->data();
        next[r] = letter->last ? nullptr : letter->next();
      });
      if (!wrong.empty()) return wrong;
      finish(operation, parts);
    }
    for (const int r : senders()) {
      if (next[r]) return text("rank ", r, " sends more than rank ", mail->rank, " receives in its group");
      mail->taken(r);
    }
    return "";
  }

 private:
  void finish(const Operation& operation, const char* const* parts) const {
    char* out = static_cast<char*>(operation.out);
    if (operation.kind == RECEIVE) std::memcpy(out, parts[operation.peer], operation.bytes());
    else if (operation.kind == ALL_GATHER) for (int r = 0; r < mail->ranks; r++) std::memcpy(out + static_cast<uint64_t>(r) * operation.bytes(), parts[r], operation.bytes());
    else if (operation.kind != SEND) comm::combine(DType(TYPES[operation.type].added_as), operation.op == ncclMax, parts, mail->ranks, out, static_cast<int64_t>(operation.count));
  }
};

}  // namespace

/// It stays when it has been given back, so that one which is used then is known.
struct ncclComm {
  std::shared_ptr<Mail> mail;
  ncclResult_t state = ncclInProgress;
  int polls = 0;
  std::function<ncclResult_t()> progress{};  // what is in progress
  std::vector<std::pair<const char*, size_t>> registered{};
  std::shared_ptr<int> captured = std::make_shared<int>();  // held by graphs
  bool live = true;
  uint64_t buffers = 0;  // bytes that it has taken
  int gpu = gpu_of_thread();
};

namespace {

std::string last_error;  // of what is no misuse

struct Call {
  ncclComm* comm;
  Operation operation;
  CUstream_st* stream;
};
thread_local int group_depth = 0;
thread_local std::vector<Call> group_calls;
thread_local ncclResult_t group_error = ncclSuccess;  // of a call in it: none of its calls is made then

ncclResult_t refuse(ncclResult_t result, const std::string& why) { return complain(text("NCCL: ", why)), result; }

/// What no call may be given.
ncclResult_t check(const ncclComm* comm) {
  if (!comm) return refuse(ncclInvalidArgument, "a communicator is null");
  if (!comm->live) return refuse(ncclInvalidArgument, "a communicator is used that was destroyed or aborted");
  return ncclSuccess;
}
/// NCCL, Creating a communicator with options: until it says ncclSuccess, only ncclCommGetAsyncError and ncclCommAbort are called.
ncclResult_t check_ready(const ncclComm* comm) {
  if (const ncclResult_t result = check(comm); result != ncclSuccess) return result;
  if (comm->state == ncclInProgress) return refuse(ncclInvalidUsage, "a communicator is used while it is in progress");
  return comm->state;
}

ncclResult_t begin(ncclComm* comm, std::function<ncclResult_t()> progress) {
  comm->progress = std::move(progress);
  comm->polls = static_cast<int>(runtime().random() % MOST_POLLS);
  return comm->state = ncclInProgress;
}

/// NCCL, NCCL_RUNTIME_CONNECT: it connects GPUs, and takes memory of them for that, when a call needs it.
bool connect(ncclComm* comm) {
  Runtime& r = runtime();
  if (comm->buffers) return true;
  if (BUFFERS > r.play.memory_bytes - std::min(r.play.memory_bytes, r.device_bytes)) return last_error = text("Failed to CUDA calloc ", BUFFERS, " bytes"), false;
  r.device_bytes += comm->buffers = BUFFERS;
  return true;
}

cudaError_t put_unit(ncclComm* comm, const std::shared_ptr<Unit>& unit, CUstream_st* stream) {
  std::vector<Touch> reads, writes;
  for (const Operation& operation : unit->operations) {
    if (operation.in) reads.push_back(touch_of(operation.in, operation.in_bytes(comm->mail->ranks), false));
    if (operation.out) writes.push_back(touch_of(operation.out, operation.out_bytes(comm->mail->ranks), true));
  }
  const std::string name = NAMES[unit->operations[0].kind];
  const std::shared_ptr<void> captured = stream->capture ? comm->captured : nullptr;
  const cudaError_t error = put(stream, {name, [=] { return unit->bring(); }, reads, nullptr, nullptr, 0, [=] { return unit->may_bring(); }, captured});
  return error != cudaSuccess ? error : put(stream, {name, [=] { return unit->take(); }, writes, nullptr, nullptr, 0, [=] { return unit->may_take(); }, captured});
}

/// NCCL, Data Pointers; CUDA Programming Guide, Device Memory Accesses: addresses are multiples of what is read there.
ncclResult_t check_memory(const ncclComm* comm, const void* memory, uint64_t bytes, size_t element_bytes) {
  if (!bytes) return ncclSuccess;
  if (!memory) return refuse(ncclInvalidArgument, "a buffer is null");
  if (reinterpret_cast<uintptr_t>(memory) % element_bytes) return refuse(ncclInvalidArgument, "a buffer is not aligned to its elements");
  // NCCL, User Buffer Registration: where one buffer of a communicator is registered, all are.
  const auto holds = [&](const auto& r) { return static_cast<const char*>(memory) >= r.first && static_cast<const char*>(memory) + bytes <= r.first + r.second; };
  if (!comm->registered.empty() && std::none_of(comm->registered.begin(), comm->registered.end(), holds)) return refuse(ncclInvalidUsage, "a buffer is not registered, and others are");
  return ncclSuccess;
}

ncclResult_t add(ncclComm* comm, const Operation& operation, CUstream_st* stream) {
  if (const ncclResult_t result = check_ready(comm); result != ncclSuccess) return result;
  const int ranks = comm->mail->ranks;
  if (!stream) return refuse(ncclInvalidArgument, "a stream is null");
  if (operation.type < 0 || operation.type > ncclBfloat16) return refuse(ncclInvalidArgument, "a type is none");
  if (operation.kind <= REDUCE_SCATTER && (TYPES[operation.type].added_as < 0 || (operation.op != ncclSum && operation.op != ncclMax)))
    return refuse(ncclInvalidArgument, text(TYPES[operation.type].name, " is not added by the played NCCL"));
  if (operation.is_message() && (operation.peer < 0 || operation.peer >= ranks)) return refuse(ncclInvalidArgument, "a peer is no rank of the communicator");
  for (const auto& [memory, bytes] : {std::pair<const void*, uint64_t>(operation.in, operation.in_bytes(ranks)), std::pair<const void*, uint64_t>(operation.out, operation.out_bytes(ranks))})
    if (const ncclResult_t result = check_memory(comm, memory, bytes, TYPES[operation.type].bytes); result != ncclSuccess) return result;
  if (group_calls.size() == MOST_CALLS) return refuse(ncclInvalidUsage, text("a group has more than ", MOST_CALLS, " calls"));
  group_calls.push_back({comm, operation, stream});
  return ncclSuccess;
}

ncclResult_t end_group() {
  const std::vector<Call> calls = std::exchange(group_calls, {});
  if (group_error != ncclSuccess) return std::exchange(group_error, ncclSuccess);
  std::vector<ncclComm*> comms;
  for (const Call& call : calls)
    if (std::find(comms.begin(), comms.end(), call.comm) == comms.end()) comms.push_back(call.comm);
  for (ncclComm* comm : comms) {
    const auto unit = std::make_shared<Unit>(Unit{comm->mail, {}});
    CUstream_st* stream = nullptr;
    for (const Call& call : calls) {
      if (call.comm != comm) continue;
      if (stream && stream != call.stream) return refuse(ncclInvalidUsage, "a group uses two streams, which the played NCCL does not");
      stream = call.stream;
      unit->operations.push_back(call.operation);
    }
    begin(comm, [=] { return connect(comm) && put_unit(comm, unit, stream) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError; });
  }
  return comms.empty() ? ncclSuccess : ncclInProgress;
}

ncclResult_t call(const char* name, ncclComm* comm, const Operation& operation, cudaStream_t stream) {
  const Entered entered(name);
  const ncclResult_t result = entered.fails ? ncclSystemError : add(comm, operation, stream);
  if (group_depth) return result == ncclSuccess ? result : group_error = result;
  return result == ncclSuccess ? end_group() : result;
}

/// NCCL waits until no graph holds calls of the communicator any more.
ncclResult_t give_back(ncclComm* comm, const char* how) {
  comm->live = false;
  comm->mail = nullptr;  // its works keep it until they are done
  comm->progress = nullptr;
  runtime().communicators--;
  runtime().device_bytes -= comm->buffers;
  if (comm->captured.use_count() > 1) return refuse(ncclInvalidUsage, text("a communicator is ", how, " before the graphs that hold its calls: NCCL would hang"));
  return ncclSuccess;
}

/// Calls of it that are not done yet, or of others, which the program launches and waits for together.
bool calls_are_under_way() {
  for (const CUstream_st* stream : runtime().streams)
    if (stream && std::any_of(stream->queue.begin(), stream->queue.end(), [](const Work& work) { return bool(work.ready); })) return true;
  return false;
}

}  // namespace

#define ENTER                              \
  const Entered entered(__func__);         \
  if (entered.fails) return ncclSystemError

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  ENTER;
  const MailPlace place = Mail::make();
  if (place.descriptor < 0) return ncclSystemError;
  static_assert(sizeof place <= NCCL_UNIQUE_ID_BYTES);
  *id = {};
  std::memcpy(id, &place, sizeof place);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  ENTER;
  *comm = nullptr;
  if (refused_by_capture()) return ncclUnhandledCudaError;  // it allocates
  if (!config || config->size != sizeof(ncclConfig_t) || config->magic != NCCL_API_MAGIC) return refuse(ncclInvalidArgument, "a configuration is not initialized");
  if (!std::getenv("NCCL_NVLS_ENABLE")) return refuse(ncclInvalidUsage, "nothing says whether switches may add, which they do in another order in each call");
  if (config->blocking != 0) return refuse(ncclInvalidUsage, "a communicator blocks, which the played NCCL does not");
  if (ranks < 1 || ranks > MOST_RANKS || rank < 0 || rank >= ranks) return refuse(ncclInvalidArgument, text("rank ", rank, " of ", ranks, " is none"));
  MailPlace place;
  std::memcpy(&place, &id, sizeof place);
  std::string why;
  auto mail = Mail::join(place, rank, ranks, &why);
  if (!mail && why.empty()) return ncclRemoteError;  // the rank that made the id has ended, which is no misuse
  if (!mail) return refuse(ncclInvalidUsage, why);
  *comm = new ncclComm{std::move(mail)};
  runtime().communicators++;
  return begin(*comm, [mail = (*comm)->mail] { return mail->all_have_joined() ? ncclSuccess : ncclInProgress; });
}

/// Asked again and again, it counts as a call when something is no longer in progress: what is to fail then fails as NCCL's own threads do.
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  const std::lock_guard lock(runtime().mutex);
  if (const ncclResult_t result = check(comm); result != ncclSuccess) return result;
  if (group_depth) return refuse(ncclInvalidUsage, "a group has not ended when it is asked how far it is");
  if (comm->state == ncclInProgress && comm->polls-- <= 0) {
    comm->state = comm->progress();
    if (comm->state != ncclInProgress && Entered(__func__).fails) comm->state = ncclSystemError;
  }
  *state = comm->state;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  ENTER;
  if (refused_by_capture()) return ncclUnhandledCudaError;
  if (const ncclResult_t result = check_ready(comm); result != ncclSuccess) return result;
  return begin(comm, [] {
    bool awaits_others = false;
    if (calls_are_under_way()) go_on(&awaits_others);
    return calls_are_under_way() ? ncclInProgress : ncclSuccess;
  });
}

/// NCCL, Finalizing a communicator: one that does not block is destroyed when it has been finalized.
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const Entered entered(__func__);
  if (const ncclResult_t result = check_ready(comm); result != ncclSuccess) return result;
  if (!comm->registered.empty()) return refuse(ncclInvalidUsage, "a communicator is destroyed that has registered memory");
  const ncclResult_t result = give_back(comm, "destroyed");
  return entered.fails ? ncclSystemError : result;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const Entered entered(__func__);
  if (const ncclResult_t result = check(comm); result != ncclSuccess) return result;
  if (gpu_of_thread() != comm->gpu) return refuse(ncclInvalidUsage, "a communicator is aborted by a thread of another GPU, on which NCCL would make a context");
  comm->mail->aborted = true;
  const ncclResult_t result = give_back(comm, "aborted");
  return entered.fails ? ncclSystemError : result;
}

ncclResult_t ncclCommRegister(const ncclComm_t comm, void* memory, size_t bytes, void** handle) {
  ENTER;
  if (const ncclResult_t result = check_ready(comm); result != ncclSuccess) return result;
  const auto begin = reinterpret_cast<uintptr_t>(memory);
  const Allocation* allocation = find(begin, begin + bytes);
  if (!allocation || !allocation->device || !allocation->live) return refuse(ncclInvalidArgument, "memory is registered that is none of the GPU");
  if (!allocation->by_nccl) return refuse(ncclInvalidUsage, "memory is registered that ncclMemAlloc did not give: NCCL would make no use of it");
  comm->registered.emplace_back(static_cast<const char*>(memory), bytes);
  *handle = memory;
  return ncclSuccess;
}

ncclResult_t ncclCommDeregister(const ncclComm_t comm, void* handle) {
  const Entered entered(__func__);
  if (const ncclResult_t result = check_ready(comm); result != ncclSuccess) return result;
  const auto known = std::find_if(comm->registered.begin(), comm->registered.end(), [&](const auto& r) { return r.first == handle; });
  if (known == comm->registered.end()) return refuse(ncclInvalidArgument, "memory is deregistered that is not registered");
  comm->registered.erase(known);
  return entered.fails ? ncclSystemError : ncclSuccess;
}

ncclResult_t ncclMemAlloc(void** memory, size_t bytes) {
  ENTER;
  if (allocate(memory, bytes, true) != cudaSuccess) return ncclUnhandledCudaError;
  return find(reinterpret_cast<uintptr_t>(*memory), reinterpret_cast<uintptr_t>(*memory))->by_nccl = true, ncclSuccess;
}

ncclResult_t ncclMemFree(void* memory) {
  const Entered entered(__func__);
  const bool freed = release(memory, true) == cudaSuccess;
  return entered.fails || !freed ? ncclUnhandledCudaError : ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  constexpr const char* NAMES_OF_RESULTS[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error", "invalid argument", "invalid usage", "remote process exited or there was a network error", "NCCL operation in progress"};
  return NAMES_OF_RESULTS[result];
}

const char* ncclGetLastError(ncclComm_t) {
  const std::lock_guard lock(runtime().mutex);
  const std::string& problem = runtime().played.problem;
  return (problem.empty() ? last_error : problem).c_str();
}

ncclResult_t ncclGroupStart() {
  ENTER;
  group_depth++;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const Entered entered(__func__);
  if (!group_depth) return refuse(ncclInvalidUsage, "a group ends that has not begun");
  if (--group_depth) return ncclSuccess;
  if (entered.fails) group_error = ncclSystemError;
  return end_group();
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return call(__func__, comm, {ALL_REDUCE, in, out, count, type, op, 0}, stream);
}

ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return call(__func__, comm, {REDUCE_SCATTER, in, out, count, type, op, 0}, stream);
}

ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream) {
  return call(__func__, comm, {ALL_GATHER, in, out, count, type, ncclSum, 0}, stream);
}

ncclResult_t ncclSend(const void* in, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return call(__func__, comm, {SEND, in, nullptr, count, type, ncclSum, peer}, stream);
}

ncclResult_t ncclRecv(void* out, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return call(__func__, comm, {RECEIVE, nullptr, out, count, type, ncclSum, peer}, stream);
}
}
