// The threads of a build without OpenMP. Every thread that opens regions has a team of its own, which is made when it is first needed, grows
// when a region has more threads, and ends with that thread.
#pragma once

namespace titan::cpu {

/// work(what, thread, threads) from each of so many threads; thread 0 is the calling one. Returns when all are done. Inside a region the calling
/// thread is a team of one. Throws a Failure where the system gives too few threads, which a region of no more threads than an earlier one cannot.
void run_region(int threads, void (*work)(void* what, int thread, int threads), void* what);
bool in_region();
/// Inside a region: returns when all of its threads have come here.
void wait_for_region();

}  // namespace titan::cpu
