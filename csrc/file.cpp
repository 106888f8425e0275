#include "file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "failure.h"
#include "sha256.h"

namespace titan {

constexpr uint64_t PIECE = 128 << 10;  // of each lane: all of them fit into half of a second-level cache of 1 MiB

File::File(const char* path) : path_(path), descriptor_(open(path, O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) fail();
}

File::~File() { close(descriptor_); }

void File::fail() const {
  throw Failure(TITAN_STATUS_INVALID_ARGUMENT, text("Cannot read ", path_, ": ", std::strerror(errno), "; expected: a file that this process may read; fix: put it back, or name another"));
}

uint64_t File::read(uint64_t offset, uint8_t* bytes, uint64_t n) const {
  uint64_t done = 0;
  while (done < n) {
    const ssize_t read = pread(descriptor_, bytes + done, n - done, static_cast<off_t>(offset + done));
    if (read < 0 && errno == EINTR) continue;
    if (read < 0) fail();
    if (read == 0) break;
    done += static_cast<uint64_t>(read);
  }
  return done;
}

namespace {

/// Goes through the stretches of a part, piece by piece.
class Cursor {
 public:
  explicit Cursor(const Part& part) : next_(part.stretches), end_(part.stretches + part.num_stretches) {}

  /// Leaves behind what ends before a byte of the part.
  void advance(uint64_t at) {
    while (next_ != end_ && next_->from + next_->num_bytes <= at) next_++;
  }

  /// Where in the sink a piece belongs, if all of it goes to one place.
  std::optional<uint64_t> place(uint64_t at, uint64_t n) const {
    if (next_ == end_ || next_->from > at || next_->from + next_->num_bytes < at + n) return {};
    return next_->to + (at - next_->from);
  }

  /// Puts the stretches of a piece, as far as it was read, into the sink.
  void scatter(uint64_t at, uint64_t n, const uint8_t* piece, const Sink& sink) const {
    for (const titan_stretch* stretch = next_; stretch != end_ && stretch->from < at + n; stretch++) {
      const uint64_t from = std::max(at, stretch->from), to = std::min(at + n, stretch->from + stretch->num_bytes);
      sink.write(stretch->to + (from - stretch->from), piece + (from - at), to - from);
    }
  }

 private:
  const titan_stretch* next_;
  const titan_stretch* const end_;
};

}  // namespace

void read_parts(Part* parts, int num_parts, uint64_t n, const Sink& sink, uint8_t* hashes) {
  Sha256 sha(num_parts);
  const auto room = std::make_unique_for_overwrite<uint8_t[]>(num_parts * PIECE);
  std::vector<Cursor> cursors(parts, parts + num_parts);
  for (int i = 0; i < num_parts; i++) parts[i].read = 0;
  uint64_t at = 0;
  do {
    const uint64_t size = std::min(PIECE, n - at);
    const uint8_t* pieces[Sha256::MOST_LANES] = {};
    for (int i = 0; i < num_parts; i++) {
      Part& part = parts[i];
      cursors[i].advance(at);
      const std::optional<uint64_t> place = sink.memory ? cursors[i].place(at, size) : std::nullopt;
      uint8_t* const piece = place ? sink.memory + *place : room.get() + i * PIECE;
      const uint64_t read = part.read == at ? part.file->read(part.offset + at, piece, size) : 0;
      if (!place) cursors[i].scatter(at, read, piece, sink);
      part.read += read;
      pieces[i] = piece;
    }
    at += size;
    if (!hashes) continue;
    const uint64_t whole = size / Sha256::BLOCK * Sha256::BLOCK;
    sha.add(pieces, whole);
    for (int i = 0; i < num_parts && at == n; i++) {
      const Sha256::Hash hash = sha.end(i, pieces[i] + whole, size - whole);
      std::copy(hash.begin(), hash.end(), hashes + i * hash.size());
    }
  } while (at < n);
}

}  // namespace titan
