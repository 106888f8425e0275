// libtitan_mpi: the communication module over MPI (Open MPI, MPICH and others; built against one of them). Messages serve ranks of different
// hosts.
#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "../messages.h"

namespace {

/// An error of MPI, in its words.
struct Error {
  const char* what;
  int code;
};

int fail(char* error, const char* what, int code) {
  char why[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, why, &length);
  std::snprintf(error, TITAN_COMM_TEXT, "%s: %s", what, why);
  return TITAN_COMM_FAILED;
}

#define MUST(call, what) \
  if (const int code_ = (call); code_ != MPI_SUCCESS) return fail(error, what, code_)

class Group final : public titan::comm::Messages {
 public:
  Group(MPI_Comm comm, int rank, int size) : Messages(rank, size), comm_(comm) {}

 protected:
  void send(int lane, int to, const char* data, int64_t bytes) override {
    MPI_Request request;
    if (const int code = MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, to, 0, comm_, &request)) throw Error{"MPI_Isend", code};
    lanes_[lane].push_back(request);
  }
  void receive(int lane, int from, char* data, int64_t bytes) override {
    MPI_Request request;
    if (const int code = MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, from, 0, comm_, &request)) throw Error{"MPI_Irecv", code};
    lanes_[lane].push_back(request);
  }
  bool finish(int lane, const titan_comm_wait& wait) override {
    std::vector<MPI_Request>& requests = lanes_[lane];
    for (int done = 0; !done;) {
      if (const int code = MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE)) throw Error{"MPI_Testall", code};
      if (!done && !wait.go_on(wait.context)) return false;
    }
    requests.clear();
    return true;
  }

 private:
  const MPI_Comm comm_;
  std::vector<MPI_Request> lanes_[titan::comm::LANES];
};

// Messages that nobody waits for any more may still arrive. Neither MPI nor its standard offers a way to call back what has been posted, so all that
// MPI writes to or reads from is either in a group, and groups are never freed, or a tensor, and stays until the process ends.
Group* world = nullptr;

Group& group_of(void* group) { return group ? *static_cast<Group*>(group) : *world; }

int make_messages(MPI_Comm comm, Group** group, char* error) {
  int rank = 0, size = 0;
  MUST(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  MUST(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  MUST(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  *group = new Group(comm, rank, size);
  return TITAN_COMM_OK;
}

/// What a rank that gives up tells the others, each by a message of its own.
struct Notice {
  MPI_Comm comm;
  MPI_Request receiving;
  int from = -1;
  char heard[TITAN_COMM_TEXT], told[TITAN_COMM_TEXT];
  std::vector<MPI_Request> telling;
};
Notice& notice = *new Notice{};

int open_world(titan_comm_place* place, char* error) {
  int done = 0, given = 0;
  MPI_Finalized(&done);
  if (done) return std::snprintf(error, TITAN_COMM_TEXT, "MPI has ended in this process; expected: to be opened once"), TITAN_COMM_FAILED;
  MPI_Initialized(&done);
  // PMIx (of Open MPI) would share its data at fixed addresses, of which Deno's heap may have taken one: starts then fail now and then.
  setenv("PMIX_MCA_gds", "hash", 0);
  if (!done) MUST(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &given), "MPI_Init_thread");
  if (const int result = make_messages(MPI_COMM_WORLD, &world, error)) return result;
  MPI_Comm host;
  MUST(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL, &host), "MPI_Comm_split_type");
  int lowest = world->rank;
  MUST(MPI_Bcast(&lowest, 1, MPI_INT, 0, host), "MPI_Bcast");
  MUST(MPI_Comm_free(&host), "MPI_Comm_free");
  char version[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(version, &length);
  *place = {world->rank, world->size, lowest, {}};
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
  MPI_Comm comm;
  MUST(MPI_Comm_create_group(MPI_COMM_WORLD, some, 0, &comm), "MPI_Comm_create_group");
  MPI_Group_free(&some);
  MPI_Group_free(&all);
  Group* group = nullptr;
  const int result = make_messages(comm, &group, error);
  *out = group;
  return result;
}

template <class Run> int guarded(char* error, Run run) {
  try {
    return run();
  } catch (const Error& e) {
    return fail(error, e.what, e.code);
  }
}

int gather(void* group, const void* mine, void* all, uint64_t bytes, const titan_comm_wait* wait, char* error) {
  return guarded(error, [&] { return group_of(group).gather(mine, all, static_cast<int64_t>(bytes), *wait); });
}

int run(void* group, const titan_comm_call* call, const titan_comm_wait* wait, char* error) {
  return guarded(error, [&] { return group_of(group).run(*call, *wait); });
}

int run_stages(void* group, const titan_comm_stages* stages, const titan_comm_wait* wait, char* error) {
  return guarded(error, [&] { return group_of(group).run(*stages, *wait); });
}

void give_up(const char* why) {
  std::snprintf(notice.told, sizeof notice.told, "%s", why);
  for (int rank = 0; rank < world->size; rank++) {
    MPI_Request request;
    if (rank != world->rank && MPI_Isend(notice.told, TITAN_COMM_TEXT, MPI_CHAR, rank, 0, notice.comm, &request) == MPI_SUCCESS) notice.telling.push_back(request);
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
  if (notice.from >= 0) std::snprintf(why, TITAN_COMM_TEXT, "gave up: %.*s", TITAN_COMM_TEXT - 10, notice.heard);
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

const titan_comm_module MODULE = {TITAN_COMM_ABI, /* sleeps */ 0, /* watches */ 0, open_world, make_group, gather, run, run_stages, give_up, given_up, close_world, abort_world};

}  // namespace

extern "C" __attribute__((visibility("default"))) const titan_comm_module* TITAN_COMM_MODULE() { return &MODULE; }
