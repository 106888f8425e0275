// Files that are read from front to back, with hashes made while the processor's cache still has the bytes.
#pragma once
#include <cstdint>
#include <string>

namespace titan {

/// It stays open, since the system reads ahead of who goes on with a file.
class File {
 public:
  explicit File(const char* path);
  ~File();
  File(const File&) = delete;
  /// Fills `bytes` with n bytes from an offset on, as far as the file goes, and returns how many those are.
  uint64_t read(uint64_t offset, uint8_t* bytes, uint64_t n) const;

 private:
  [[noreturn]] void fail() const;
  const std::string path_;
  const int descriptor_;
};

/// A part of a file, where it goes, and how much of it there was.
struct Part {
  const File* file;
  uint64_t offset;
  uint8_t* bytes;
  uint64_t read;
};

/// Reads n bytes of each part, of which there are at most Sha256::MOST_LANES, and puts the SHA-256 of each where `hashes` says, unless null. That of a
/// part which is shorter means nothing.
void read_parts(Part* parts, int num_parts, uint64_t n, uint8_t* hashes);

}  // namespace titan
