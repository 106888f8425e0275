#include "processors.h"

#ifdef __linux__
#include <sched.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>

#include "../failure.h"

namespace titan::comm {
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

/// Of /sys; 0 where there is no such file.
int topology(int processor, const char* what) {
  char path[128];
  std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", processor, what);
  int value = 0;
  if (FILE* file = std::fopen(path, "r")) {
    if (std::fscanf(file, "%d", &value) != 1) value = 0;
    std::fclose(file);
  }
  return value;
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

std::vector<int> processors_by_core() {
  std::vector<std::tuple<int, int, int>> places;
  for (int i = 0; i < std::min<int64_t>(MOST, sysconf(_SC_NPROCESSORS_CONF)); i++) places.emplace_back(topology(i, "physical_package_id"), topology(i, "core_id"), i);
  std::sort(places.begin(), places.end());
  std::vector<int> order;
  for (const auto& place : places) order.push_back(std::get<2>(place));
  return order;
}

Share share_of(const std::vector<Processors>& ranks, size_t self, const std::vector<int>& cores) {
  const Processors& own = ranks[self];
  std::vector<int> usable;
  for (const int processor : cores)
    if (has(own, processor)) usable.push_back(processor);
  if (usable.empty()) return {{}, "threads run where the system likes, which does not say where they may"};
  const auto same = [&](const Processors& p) { return !std::memcmp(p.bits, own.bits, sizeof own.bits); };
  const auto overlaps = [&](const Processors& p) { return std::any_of(usable.begin(), usable.end(), [&](int processor) { return has(p, processor); }); };
  const auto sharing = static_cast<size_t>(std::count_if(ranks.begin(), ranks.end(), overlaps));
  uint32_t most = 0, all = 0;
  for (const Processors& p : ranks)
    if (overlaps(p)) most = std::max(most, p.threads), all += p.threads;
  const auto ranks_share = text(sharing, " ranks with ", all, " threads share processors ", list(usable));
  if (sharing == 1) return {{}, text("threads on processors ", list(usable), ", to which this rank was bound when it started")};
  for (const char* name : {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"})
    if (std::getenv(name)) return {{}, text("threads bound by ", name)};
  if (!std::all_of(ranks.begin(), ranks.end(), [&](const Processors& p) { return same(p) || !overlaps(p); })) return {{}, text("threads not bound: ", ranks_share, ", and some may use others too")};
  const size_t share = usable.size() / sharing;
  if (share < most) return {{}, text("threads not bound: ", ranks_share)};
  const auto before = static_cast<size_t>(std::count_if(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(self), same));
  const auto first = usable.begin() + static_cast<std::ptrdiff_t>(before * share);
  Share own_share{{first, first + static_cast<std::ptrdiff_t>(share)}, ""};
  own_share.text = text("threads bound to processor", share > 1 ? "s " : " ", list(own_share.processors));
  return own_share;
}

void bind(Executor& executor, const std::vector<int>& processors) {
#ifdef __linux__
  executor.run([&] {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int processor : processors) CPU_SET(processor, &set);
    // Threads that the team takes on later inherit this.
#pragma omp parallel num_threads(executor.threads())
    sched_setaffinity(0, sizeof set, &set);
  });
#else
  (void)executor, (void)processors;
#endif
}

}  // namespace titan::comm
