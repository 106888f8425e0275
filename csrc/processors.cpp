#include "processors.h"

#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "failure.h"
#include "limits.h"

namespace titan {
namespace {

constexpr int MOST = 64 * static_cast<int>(sizeof Processors::bits / sizeof *Processors::bits);

bool has(const Processors& p, int processor) { return processor < MOST && p.bits[processor / 64] >> (processor % 64) & 1; }

/// "0-3, 8".
std::string list(std::vector<int> numbers) {
  std::sort(numbers.begin(), numbers.end());
  std::string out;
  for (size_t i = 0; i < numbers.size();) {
    size_t end = i;
    while (end + 1 < numbers.size() && numbers[end + 1] == numbers[end] + 1) end++;
    out += (out.empty() ? "" : ", ") + std::to_string(numbers[i]) + (end > i ? "-" + std::to_string(numbers[end]) : "");
    i = end + 1;
  }
  return out;
}

/// The first number of a file of /sys ("3", "0,4", "0-1"), or what there is instead.
int first_number(const std::string& root, int processor, const char* what, int otherwise) {
  int value = otherwise;
  if (FILE* file = std::fopen(text(root, "/sys/devices/system/cpu/cpu", processor, "/topology/", what).c_str(), "r")) {
    if (std::fscanf(file, "%d", &value) != 1) value = otherwise;
    std::fclose(file);
  }
  return value;
}

std::string list(const std::vector<Core>& cores) {
  std::vector<int> all;
  for (const Core& core : cores) all.insert(all.end(), core.begin(), core.end());
  return list(all);
}

int count(const std::vector<Core>& cores) {
  return std::accumulate(cores.begin(), cores.end(), 0, [](int sum, const Core& core) { return sum + static_cast<int>(core.size()); });
}

/// Who binds threads by these does so before libtitan can.
const char* bound_by() {
  for (const char* name : {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"})
    if (std::getenv(name)) return name;
  return nullptr;
}

}  // namespace

Processors own_processors(int threads) {
  Processors own = {};
  own.threads = static_cast<uint32_t>(threads);
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  // Of the process's first thread: others may be bound already.
  if (!sched_getaffinity(getpid(), sizeof set, &set))
    for (int i = 0; i < std::min(MOST, CPU_SETSIZE); i++)
      if (CPU_ISSET(i, &set)) own.bits[i / 64] |= uint64_t{1} << (i % 64);
#endif
  return own;
}

std::vector<Core> cores_of_host(const std::string& root) {
  std::map<std::pair<int, int>, Core> cores;  // by socket and first processor
  for (int i = 0; i < MOST && !access(text(root, "/sys/devices/system/cpu/cpu", i).c_str(), F_OK); i++) {
    const int first = first_number(root, i, "thread_siblings_list", -1);
    if (first >= 0) cores[{first_number(root, i, "physical_package_id", 0), first}].push_back(i);
  }
  // A system that does not tell cores apart has one for each processor.
  if (cores.empty())
    for (int i = 0; i < std::min<int64_t>(MOST, sysconf(_SC_NPROCESSORS_ONLN)); i++) cores[{0, i}].push_back(i);
  std::vector<Core> list;
  for (auto& [place, core] : cores) list.push_back(std::move(core));
  return list;
}

std::vector<Core> usable_cores(const Processors& own, const std::vector<Core>& cores) {
  std::vector<Core> usable;
  for (const Core& core : cores) {
    Core some;
    std::copy_if(core.begin(), core.end(), std::back_inserter(some), [&](int processor) { return has(own, processor); });
    if (!some.empty()) usable.push_back(std::move(some));
  }
  return usable;
}

Threads threads_for(const std::vector<Core>& usable, const std::vector<Core>& cores, double quota, const Sharing& sharing) {
  const int processors = count(usable), processes = std::max(1, sharing.processes);
  const bool shares = processes > 1 && !(sharing.placed && processors * processes <= count(cores));
  Threads threads{std::max(1, static_cast<int>(usable.size())), ""};
  if (processors > threads.number) threads.why = text("one for each core of ", processors, " hyper-threads");
  if (shares) threads = {std::max(1, threads.number / processes), text("an equal share of ", threads.number, " cores for each of ", processes, " ranks")};
  // All processes of a run are taken to be within the quota: whoever gives each one of its own also gives it a host of its own.
  const double kept_busy = std::ceil(quota);
  if (kept_busy >= static_cast<double>(threads.number) * processes) return threads;
  char number[32];
  std::snprintf(number, sizeof number, "%.3g", quota);
  return {std::max(1, static_cast<int>(kept_busy) / processes), text("the CPU quota is ", number, processes > 1 ? text(" for ", processes, " ranks") : "")};
}

Share share_of(const std::vector<Processors>& ranks, size_t self, const std::vector<Core>& cores) {
  const Processors& own = ranks[self];
  std::vector<Core> usable = usable_cores(own, cores);
  if (usable.empty()) return {{}, "threads run where the system likes, which does not say where they may"};
  const auto same = [&](const Processors& p) { return !std::memcmp(p.bits, own.bits, sizeof own.bits); };
  const auto overlaps = [&](const Processors& p) { return !usable_cores(p, usable).empty(); };
  const auto sharing = static_cast<size_t>(std::count_if(ranks.begin(), ranks.end(), overlaps));
  uint32_t most = 0, all = 0;
  for (const Processors& p : ranks)
    if (overlaps(p)) most = std::max(most, p.threads), all += p.threads;
  const auto ranks_share = text(sharing, " ranks with ", all, " threads share processors ", list(usable));
  if (const char* name = bound_by()) return {{}, text("threads bound by ", name)};
  if (sharing == 1) return {own.threads == usable.size() ? usable : std::vector<Core>{}, text("threads on processors ", list(usable), ", to which this rank was bound when it started")};
  if (!std::all_of(ranks.begin(), ranks.end(), [&](const Processors& p) { return same(p) || !overlaps(p); })) return {{}, text("threads not bound: ", ranks_share, ", and some may use others too")};
  if (usable.size() / sharing < most) {  // then a hyper-thread counts as a core
    std::vector<Core> single;
    for (const Core& core : usable)
      for (const int processor : core) single.push_back({processor});
    usable = std::move(single);
  }
  const size_t share = usable.size() / sharing;
  if (share < most) return {{}, text("threads not bound: ", ranks_share)};
  const auto before = static_cast<size_t>(std::count_if(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(self), same));
  const auto first = usable.begin() + static_cast<std::ptrdiff_t>(before * share);
  Share own_share{{first, first + static_cast<std::ptrdiff_t>(share)}, ""};
  own_share.text = text("threads bound to processor", count(own_share.cores) > 1 ? "s " : " ", list(own_share.cores));
  return own_share;
}

int sockets_of(const std::vector<Core>& cores, const std::string& root) {
  std::set<int> sockets;
  for (const Core& core : cores) sockets.insert(first_number(root, core.front(), "physical_package_id", 0));
  return static_cast<int>(sockets.size());
}

Share share_alone(const Processors& own, const std::vector<Core>& cores, int sockets) {
  if (bound_by()) return {{}, text("bound by ", bound_by())};
  std::vector<Core> usable = usable_cores(own, cores);
  if (usable.size() < 2 || usable.size() != own.threads || (sockets < 2 && count(usable) == count(cores))) return {};
  return {std::move(usable), "each bound to a core"};
}

void run_soon() {
#ifdef SYS_sched_setattr
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t turn_ns, deadline, period;
  } attributes = {};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0)) return;
  attributes.turn_ns = 100'000;
  syscall(SYS_sched_setattr, 0, &attributes, 0);
#endif
}

}  // namespace titan
