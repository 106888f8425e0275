// What this process may take of its machine: memory and processor time. Limits are the machine's and those of the control groups (cgroups) that
// the process is in, from its own up to the root, of version 1, 2 or both; what is in use counts where the limit is.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace titan {

/// Memory that processes have together: those of the machine, or those of a control group.
struct MemoryLimit {
  uint64_t group;             // the same number for all processes of this host that have the limit together; 0: the machine
  std::string file;           // that sets the limit, or nothing for the machine
  uint64_t bytes, available;  // in all; and not in use, or held by caches of files, which give way
};

/// The machine's first, then those of control groups that are lower than the whole machine. `root` is put before each path: tests have their own.
std::vector<MemoryLimit> memory_limits(const std::string& root = "");

/// Memory that only this process has: not what caches files.
uint64_t own_memory(const std::string& root = "");

/// How many processes of one run have a limit together: those of the host, unless it is told of a group.
struct MemorySharing {
  int processes = 1;
  std::map<uint64_t, int> of_group;
};

/// The limit that leaves a process least: `available` is its part of what nobody uses, and what it has already.
MemoryLimit memory_of(const MemorySharing& sharing, const std::string& root = "");

/// How many processors may be busy all the time, by the lowest quota of the control groups; infinity where there is none.
double cpu_quota(const std::string& root = "");

}  // namespace titan
