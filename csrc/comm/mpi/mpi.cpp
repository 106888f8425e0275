// libtitan_mpi: the communication module over MPI (Open MPI, MPICH and others; built against one of them). Messages serve ranks of different
// hosts. A sum travels as pieces that each rank adds in the order of the ranks, so it has the same bits as through shared memory, in every run.
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "../combine.h"
#include "../module.h"

namespace {

using titan::DType;

constexpr int64_t STAGE_BYTES = 256 << 10;  // of a piece that travel at a time
constexpr int64_t MOST = int64_t{1} << 30;  // bytes of a message

struct Group {
  MPI_Comm comm;
  int size, rank;
  std::vector<char> sent, received;  // staged pieces, one for each rank
  std::vector<const char*> parts;    // where those that are added up lie
  std::vector<MPI_Request> requests;  // of an exchange
};

// Messages that nobody waits for any more may still arrive. Neither MPI nor its standard offers a way to call back what takes part in a collective,
// so all that MPI writes to or reads from is either here or a tensor, and stays until the process ends.
Group& world = *new Group{};

/// What a rank that gives up tells the others, each by a message of its own.
struct Notice {
  MPI_Comm comm;
  MPI_Request receiving;
  int from = -1;
  char heard[TITAN_COMM_TEXT], told[TITAN_COMM_TEXT];
  std::vector<MPI_Request> telling;
};
Notice& notice = *new Notice{};

int fail(char* error, const char* what, int code) {
  char why[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, why, &length);
  std::snprintf(error, TITAN_COMM_TEXT, "%s: %s", what, why);
  return TITAN_COMM_FAILED;
}

#define MUST(call, what) \
  if (const int code_ = (call); code_ != MPI_SUCCESS) return fail(error, what, code_)

Group& group_of(void* group) { return group ? *static_cast<Group*>(group) : world; }

/// Waits for a message, asking `wait` whether to go on.
int finish(MPI_Request* request, const titan_comm_wait* wait, char* error) {
  for (int done = 0;;) {
    MUST(MPI_Test(request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done) return TITAN_COMM_OK;
    if (!wait->go_on(wait->context)) return TITAN_COMM_GAVE_UP;
  }
}

int set_up(Group& group, char* error) {
  MUST(MPI_Comm_set_errhandler(group.comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  MUST(MPI_Comm_rank(group.comm, &group.rank), "MPI_Comm_rank");
  MUST(MPI_Comm_size(group.comm, &group.size), "MPI_Comm_size");
  return TITAN_COMM_OK;
}

int open_world(titan_comm_place* place, char* error) {
  int done = 0, given = 0;
  MPI_Finalized(&done);
  if (done) return std::snprintf(error, TITAN_COMM_TEXT, "MPI has ended in this process; expected: to be opened once"), TITAN_COMM_FAILED;
  MPI_Initialized(&done);
  // PMIx (of Open MPI) would share its data at fixed addresses, of which Deno's heap may have taken one: starts then fail now and then.
  setenv("PMIX_MCA_gds", "hash", 0);
  if (!done) MUST(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &given), "MPI_Init_thread");
  world.comm = MPI_COMM_WORLD;
  if (const int result = set_up(world, error)) return result;
  MPI_Comm host;
  MUST(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &host), "MPI_Comm_split_type");
  int lowest = world.rank;
  MUST(MPI_Bcast(&lowest, 1, MPI_INT, 0, host), "MPI_Bcast");
  MUST(MPI_Comm_free(&host), "MPI_Comm_free");
  char version[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(version, &length);
  *place = {world.rank, world.size, lowest, {}};
  MUST(MPI_Comm_dup(MPI_COMM_WORLD, &notice.comm), "MPI_Comm_dup");
  MUST(MPI_Comm_set_errhandler(notice.comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  MUST(MPI_Irecv(notice.heard, TITAN_COMM_TEXT, MPI_CHAR, MPI_ANY_SOURCE, 0, notice.comm, &notice.receiving), "MPI_Irecv");
  // "Open MPI v5.0.7, package: ...": the rest is for packagers.
  std::snprintf(place->version, sizeof place->version, "%.*s", static_cast<int>(std::strcspn(version, ",\n")), version);
  return TITAN_COMM_OK;
}

int make_group(const int32_t* ranks, int32_t size, void** out, char* error) {
  MPI_Group all, some;
  MUST(MPI_Comm_group(MPI_COMM_WORLD, &all), "MPI_Comm_group");
  const std::vector<int> list(ranks, ranks + size);
  MUST(MPI_Group_incl(all, size, list.data(), &some), "MPI_Group_incl");
  auto* group = new Group{};
  MUST(MPI_Comm_create_group(MPI_COMM_WORLD, some, 0, &group->comm), "MPI_Comm_create_group");
  MPI_Group_free(&some);
  MPI_Group_free(&all);
  *out = group;
  return set_up(*group, error);
}

int gather(void* group, const void* mine, void* all, uint64_t bytes, const titan_comm_wait* wait, char* error) {
  MPI_Request request;
  Group& own = group_of(group);
  const int count = static_cast<int>(bytes);
  own.sent.assign(static_cast<const char*>(mine), static_cast<const char*>(mine) + bytes);
  own.received.resize(std::max(own.received.size(), static_cast<size_t>(bytes) * static_cast<size_t>(own.size)));
  MUST(MPI_Iallgather(own.sent.data(), count, MPI_BYTE, own.received.data(), count, MPI_BYTE, own.comm, &request), "MPI_Iallgather");
  if (const int result = finish(&request, wait, error)) return result;
  std::memcpy(all, own.received.data(), static_cast<size_t>(bytes) * static_cast<size_t>(own.size));
  return TITAN_COMM_OK;
}

/// Where piece elements [start, start + count) of all rows' pieces of `chunk` elements lie: calls each(byte offset in a part, byte offset in the whole
/// less the piece's, bytes).
template <class Each> void each_run(uint64_t elements, int64_t pieces, int64_t size, int64_t start, int64_t count, Each each) {
  const auto chunk = static_cast<int64_t>(elements);
  for (int64_t at = start; at < start + count;) {
    const int64_t row = at / chunk, column = at % chunk, run = std::min(chunk - column, start + count - at);
    each(at * size, (row * pieces * chunk + column) * size, run * size);
    at += run;
  }
}

int all_gather(Group& group, const titan_comm_tensor& tensor, int64_t size, const titan_comm_wait* wait, char* error) {
  const int64_t total = static_cast<int64_t>(tensor.outer * tensor.chunk), most = STAGE_BYTES / size;
  group.received.resize(static_cast<size_t>(STAGE_BYTES * group.size));
  for (int64_t start = 0; start < total; start += most) {
    const int64_t count = std::min(most, total - start);
    const int bytes = static_cast<int>(count * size);
    MPI_Request request;
    MUST(MPI_Iallgather(static_cast<const char*>(tensor.in) + start * size, bytes, MPI_BYTE, group.received.data(), bytes, MPI_BYTE, group.comm, &request), "MPI_Iallgather");
    if (const int result = finish(&request, wait, error)) return result;
    for (int r = 0; r < group.size; r++) {
      const char* from = group.received.data() + static_cast<int64_t>(r) * bytes;
      char* to = static_cast<char*>(tensor.out) + r * static_cast<int64_t>(tensor.chunk) * size;
      each_run(tensor.chunk, group.size, size, start, count, [&](int64_t part, int64_t whole, int64_t n) { std::memcpy(to + whole, from + (part - start * size), static_cast<size_t>(n)); });
    }
  }
  return TITAN_COMM_OK;
}

/// Every rank sends each other its piece, and adds what it gets.
int reduce_scatter(Group& group, const titan_comm_call& call, const titan_comm_tensor& tensor, int64_t size, const titan_comm_wait* wait, char* error) {
  const int64_t total = static_cast<int64_t>(tensor.outer * tensor.chunk), most = STAGE_BYTES / size;
  group.sent.resize(static_cast<size_t>(STAGE_BYTES * group.size));
  group.received.resize(group.sent.size());
  std::vector<const char*>& parts = group.parts;
  parts.resize(static_cast<size_t>(group.size));
  for (int64_t start = 0; start < total; start += most) {
    const int64_t count = std::min(most, total - start);
    const int bytes = static_cast<int>(count * size);
    for (int r = 0; r < group.size; r++) {
      char* to = group.sent.data() + static_cast<int64_t>(r) * bytes;
      const char* from = static_cast<const char*>(tensor.in) + r * static_cast<int64_t>(tensor.chunk) * size;
      each_run(tensor.chunk, group.size, size, start, count, [&](int64_t part, int64_t whole, int64_t n) { std::memcpy(to + (part - start * size), from + whole, static_cast<size_t>(n)); });
      parts[static_cast<size_t>(r)] = group.received.data() + static_cast<int64_t>(r) * bytes;
    }
    MPI_Request request;
    MUST(MPI_Ialltoall(group.sent.data(), bytes, MPI_BYTE, group.received.data(), bytes, MPI_BYTE, group.comm, &request), "MPI_Ialltoall");
    if (const int result = finish(&request, wait, error)) return result;
    titan::comm::combine(DType{call.dtype}, call.by, parts.data(), group.size, static_cast<char*>(tensor.out) + start * size, count);
  }
  return TITAN_COMM_OK;
}

/// Pieces are reduced, then gathered: a piece travels in whole stages, the rest as one that is padded.
int all_reduce(Group& group, const titan_comm_call& call, const titan_comm_tensor& tensor, int64_t size, const titan_comm_wait* wait, char* error) {
  const int64_t total = static_cast<int64_t>(tensor.chunk), ranks = group.size, most = STAGE_BYTES / size;
  group.sent.resize(static_cast<size_t>(STAGE_BYTES * ranks));
  group.received.resize(group.sent.size());
  std::vector<const char*>& parts = group.parts;
  parts.resize(static_cast<size_t>(ranks));
  for (int64_t start = 0; start < total; start += most * ranks) {
    const int64_t count = std::min(most * ranks, total - start), piece = (count + ranks - 1) / ranks;
    const int bytes = static_cast<int>(piece * size);
    char* sent = group.sent.data();
    std::memcpy(sent, static_cast<const char*>(tensor.in) + start * size, static_cast<size_t>(count * size));
    std::memset(sent + count * size, 0, static_cast<size_t>((piece * ranks - count) * size));
    for (int64_t r = 0; r < ranks; r++) parts[static_cast<size_t>(r)] = group.received.data() + r * bytes;
    MPI_Request request;
    MUST(MPI_Ialltoall(sent, bytes, MPI_BYTE, group.received.data(), bytes, MPI_BYTE, group.comm, &request), "MPI_Ialltoall");
    if (const int result = finish(&request, wait, error)) return result;
    titan::comm::combine(DType{call.dtype}, call.by, parts.data(), group.size, sent, piece);
    MUST(MPI_Iallgather(sent, bytes, MPI_BYTE, group.received.data(), bytes, MPI_BYTE, group.comm, &request), "MPI_Iallgather");
    if (const int result = finish(&request, wait, error)) return result;
    std::memcpy(static_cast<char*>(tensor.out) + start * size, group.received.data(), static_cast<size_t>(count * size));
  }
  return TITAN_COMM_OK;
}

/// From the member before, to the one behind, as it lies.
int ring_shift(Group& group, const titan_comm_tensor& tensor, int64_t size, const titan_comm_wait* wait, char* error) {
  const int64_t row = static_cast<int64_t>(tensor.chunk) * size, in_step = static_cast<int64_t>(tensor.in_step) * size, out_step = static_cast<int64_t>(tensor.out_step) * size;
  const int before = (group.rank + group.size - 1) % group.size, behind = (group.rank + 1) % group.size;
  for (int64_t o = 0; o < static_cast<int64_t>(tensor.outer); o++)
    for (int64_t start = 0; start < row; start += MOST) {
      const int bytes = static_cast<int>(std::min(MOST, row - start));
      MPI_Request received, sent;
      MUST(MPI_Irecv(static_cast<char*>(tensor.out) + o * out_step + start, bytes, MPI_BYTE, before, 0, group.comm, &received), "MPI_Irecv");
      MUST(MPI_Isend(static_cast<const char*>(tensor.in) + o * in_step + start, bytes, MPI_BYTE, behind, 0, group.comm, &sent), "MPI_Isend");
      for (MPI_Request* request : {&received, &sent})
        if (const int result = finish(request, wait, error)) return result;
    }
  return TITAN_COMM_OK;
}

/// Every rank sends each other its piece, which lies in runs of `in_run` elements there and of `out_run` here.
int all_to_all(Group& group, const titan_comm_tensor& tensor, int64_t size, const titan_comm_wait* wait, char* error) {
  const int64_t total = static_cast<int64_t>(tensor.outer * tensor.chunk), most = STAGE_BYTES / size;
  group.sent.resize(static_cast<size_t>(STAGE_BYTES * group.size));
  group.received.resize(group.sent.size());
  for (int64_t start = 0; start < total; start += most) {
    const int64_t count = std::min(most, total - start);
    const int bytes = static_cast<int>(count * size);
    for (int r = 0; r < group.size; r++) {
      char* to = group.sent.data() + static_cast<int64_t>(r) * bytes;
      const char* from = static_cast<const char*>(tensor.in) + r * static_cast<int64_t>(tensor.in_run) * size;
      each_run(tensor.in_run, group.size, size, start, count, [&](int64_t part, int64_t whole, int64_t n) { std::memcpy(to + (part - start * size), from + whole, static_cast<size_t>(n)); });
    }
    MPI_Request request;
    MUST(MPI_Ialltoall(group.sent.data(), bytes, MPI_BYTE, group.received.data(), bytes, MPI_BYTE, group.comm, &request), "MPI_Ialltoall");
    if (const int result = finish(&request, wait, error)) return result;
    for (int r = 0; r < group.size; r++) {
      const char* from = group.received.data() + static_cast<int64_t>(r) * bytes;
      char* to = static_cast<char*>(tensor.out) + r * static_cast<int64_t>(tensor.out_run) * size;
      each_run(tensor.out_run, group.size, size, start, count, [&](int64_t part, int64_t whole, int64_t n) { std::memcpy(to + whole, from + (part - start * size), static_cast<size_t>(n)); });
    }
  }
  return TITAN_COMM_OK;
}

/// All messages of an exchange are on their way before any is waited for, so it does not matter in which order members list them.
int exchange(Group& group, const titan_comm_call& call, const titan_comm_wait* wait, char* error) {
  group.requests.clear();
  for (uint32_t i = 0; i < call.num_tensors; i++) {
    const titan_comm_tensor& tensor = call.tensors[i];
    const auto total = static_cast<int64_t>(tensor.chunk);
    for (int64_t start = 0; start < total && (tensor.in || tensor.out); start += MOST) {
      const int bytes = static_cast<int>(std::min(MOST, total - start));
      MPI_Request request;
      if (tensor.out) {
        MUST(MPI_Irecv(static_cast<char*>(tensor.out) + start, bytes, MPI_BYTE, static_cast<int>(tensor.from), 0, group.comm, &request), "MPI_Irecv");
      } else {
        MUST(MPI_Isend(static_cast<const char*>(tensor.in) + start, bytes, MPI_BYTE, static_cast<int>(tensor.to), 0, group.comm, &request), "MPI_Isend");
      }
      group.requests.push_back(request);
    }
  }
  for (MPI_Request& request : group.requests)
    if (const int result = finish(&request, wait, error)) return result;
  return TITAN_COMM_OK;
}

int run(void* handle, const titan_comm_call* call, const titan_comm_wait* wait, char* error) {
  Group& group = group_of(handle);
  const auto size = static_cast<int64_t>(titan::size_of(DType{call->dtype}));
  if (call->kind == titan_comm_exchange) return exchange(group, *call, wait, error);
  for (uint32_t i = 0; i < call->num_tensors; i++) {
    const titan_comm_tensor& tensor = call->tensors[i];
    if (!tensor.outer || !tensor.chunk) continue;
    const int result = call->kind == titan_comm_all_gather       ? all_gather(group, tensor, size, wait, error)
                       : call->kind == titan_comm_reduce_scatter ? reduce_scatter(group, *call, tensor, size, wait, error)
                       : call->kind == titan_comm_ring_shift     ? ring_shift(group, tensor, size, wait, error)
                       : call->kind == titan_comm_all_to_all     ? all_to_all(group, tensor, size, wait, error)
                                                                 : all_reduce(group, *call, tensor, size, wait, error);
    if (result) return result;
  }
  return TITAN_COMM_OK;
}

void give_up(const char* why) {
  std::snprintf(notice.told, sizeof notice.told, "%s", why);
  for (int rank = 0; rank < world.size; rank++) {
    MPI_Request request;
    if (rank != world.rank && MPI_Isend(notice.told, TITAN_COMM_TEXT, MPI_CHAR, rank, 0, notice.comm, &request) == MPI_SUCCESS) notice.telling.push_back(request);
  }
  const auto begun = std::chrono::steady_clock::now();
  for (int done = 0; std::chrono::steady_clock::now() - begun < std::chrono::seconds(1);) {
    if (MPI_Testall(static_cast<int>(notice.telling.size()), notice.telling.data(), &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS || done) return;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

int given_up(char* why) {
  int done = 0;
  MPI_Status status;
  if (notice.from < 0 && MPI_Test(&notice.receiving, &done, &status) == MPI_SUCCESS && done) notice.from = status.MPI_SOURCE;
  std::memcpy(why, notice.heard, TITAN_COMM_TEXT);
  return notice.from;
}

int close_world(char* error) {
  if (notice.from < 0) {
    MUST(MPI_Cancel(&notice.receiving), "MPI_Cancel");
    MUST(MPI_Wait(&notice.receiving, MPI_STATUS_IGNORE), "MPI_Wait");
  }
  MUST(MPI_Comm_free(&notice.comm), "MPI_Comm_free");
  MUST(MPI_Finalize(), "MPI_Finalize");
  return TITAN_COMM_OK;
}

void abort_world(int32_t exit_code) { MPI_Abort(MPI_COMM_WORLD, exit_code); }

const titan_comm_module MODULE = {TITAN_COMM_ABI, open_world, make_group, gather, run, give_up, given_up, close_world, abort_world};

}  // namespace

extern "C" __attribute__((visibility("default"))) const titan_comm_module* TITAN_COMM_MODULE() { return &MODULE; }
