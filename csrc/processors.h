// Which processors a device computes on: how many threads it has, and where these run. The ranks of a host share out the processors that they may
// all use, so that none works on another's.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace titan {

/// What a rank tells the others of its host.
struct Processors {
  uint64_t bits[16];  // of the processors that it may use
  uint32_t threads;   // that its device computes on
};

/// Those of this process.
Processors own_processors(int threads);

/// A core's processors: one, or its hyper-threads.
using Core = std::vector<int>;

/// The cores of this host, one socket's after another's. `root` is put before each path: tests have their own.
std::vector<Core> cores_of_host(const std::string& root = "");

/// Of the cores, what a process may use.
std::vector<Core> usable_cores(const Processors& own, const std::vector<Core>& cores);

/// A number of threads, and why it is not one for each processor; nothing where it is.
struct Threads {
  int number;
  std::string why;
};

/// Processes of one run that share a host.
struct Sharing {
  int processes = 1;
  bool placed = false;  // May whoever started them have given each processors of its own?
};

/// As many threads as a process should compute on: one for each core that it may use, but no more than its CPU quota keeps busy.
Threads threads_for(const std::vector<Core>& usable, const std::vector<Core>& cores, double quota, const Sharing& sharing);

/// What a rank gets of its host's processors, whole cores where there are enough: none if its threads are to run where the system likes. `text`
/// says which or why.
struct Share {
  std::vector<Core> cores;
  std::string text;
};

/// Of ranks that may use the same processors, each gets as many of them; if that is too few for the threads of one, nobody does.
Share share_of(const std::vector<Processors>& ranks, size_t self, const std::vector<Core>& cores);

/// On how many sockets these cores are.
int sockets_of(const std::vector<Core>& cores, const std::string& root = "");

/// The same for a process alone that has a thread for each of its cores: these, where somebody gave it some of the host's, or where its memory is
/// near to some of them. Elsewhere threads are better off free: others may run here too, and all threads wait for one whose core is taken.
Share share_alone(const Processors& own, const std::vector<Core>& cores, int sockets);

/// Lets this thread begin as soon as it is woken, although others compute without a pause on every processor: it asks for short turns, and
/// who does so goes first on Linux from 6.12 on. Elsewhere one wake-up in ten comes a tick late, 3 ms.
void run_soon();

}  // namespace titan
