// The memory of a program on a CPU.
#pragma once
#include <cstdint>

namespace titan::cpu {

/// One block of zeroed memory, 2 MB aligned, in huge pages where the system gives them.
class Arena {
 public:
  /// `shared` is such memory that the ranks of a host share, and which somebody else owns; null makes it.
  explicit Arena(uint64_t bytes, char* shared = nullptr);
  ~Arena();
  Arena(const Arena&) = delete;
  char* data() const { return data_; }
  /// Leaves the memory to the process until its end.
  void keep() { owns_ = false; }
  /// Writes to every page from the team of the calling thread, so that no step pays for page faults.
  void touch(int threads);
  /// How much of it the system has put into huge pages; 0 where it does not say.
  uint64_t huge_bytes() const;

 private:
  char* data_ = nullptr;
  uint64_t bytes_, mapped_bytes_;
  bool owns_ = true;
};

}  // namespace titan::cpu
