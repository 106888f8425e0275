// What processors of arm64 have beyond the base, by what the operating system says of them: __builtin_cpu_supports knows those of x86.
#pragma once
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#endif

/// Instructions that multiply bf16 (FEAT_BF16).
inline bool arm_has_bf16() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long BF16 = 1ul << 14;  // HWCAP2_BF16 of the kernel, from 5.8 on
  return getauxval(AT_HWCAP2) & BF16;
#elif defined(__aarch64__) && defined(__APPLE__)
  int has = 0;
  size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has;
#else
  return false;
#endif
}
