// Files that are read from front to back, with hashes made while the processor's cache still has the bytes.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "titan.h"

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

/// A part of a file, what of it goes where, in the order of the file, and how much of the part there was.
struct Part {
  const File* file;
  uint64_t offset;
  const titan_stretch* stretches;
  uint64_t num_stretches;
  uint64_t read;
};

/// What is filled. Where it is memory of this process, most is read straight into it; `write` copies the rest.
struct Sink {
  uint8_t* memory;  // or null
  std::function<void(uint64_t to, const uint8_t* bytes, uint64_t n)> write;
};

/// Reads n bytes of each part, of which there are at most Sha256::MOST_LANES, puts their stretches into the sink, and the SHA-256 of each part where
/// `hashes` says, unless null. That of a part which is shorter means nothing.
void read_parts(Part* parts, int num_parts, uint64_t n, const Sink& sink, uint8_t* hashes);

}  // namespace titan
