// What the operating system lets a process use only after it has asked.
#pragma once
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/// Asks for tile data (AMX), for all threads of this process, those to come too. The system refuses where it does not know it, or where a thread's
/// alternate signal stack has no room for it.
inline bool grants_tiles() {
#if defined(__linux__) && defined(__x86_64__)
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA of the kernel, from 5.16 on
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}
