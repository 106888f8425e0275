#include "file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "failure.h"
#include "sha256.h"

namespace titan {

constexpr uint64_t PIECE = 256 << 10;

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

void read_parts(Part* parts, int num_parts, uint64_t n, uint8_t* hashes) {
  Sha256 sha(num_parts);
  for (int i = 0; i < num_parts; i++) parts[i].read = 0;
  uint64_t at = 0;
  do {
    const uint64_t size = std::min(PIECE, n - at);
    const uint8_t* pieces[Sha256::MOST_LANES] = {};
    for (int i = 0; i < num_parts; i++) {
      auto& [file, offset, bytes, read] = parts[i];
      if (read == at) read += file->read(offset + at, bytes + at, size);
      pieces[i] = bytes + at;
    }
    at += size;
    if (!hashes) continue;
    const uint64_t whole = size / Sha256::CHUNK * Sha256::CHUNK;
    sha.add(pieces, whole);
    for (int i = 0; i < num_parts && at == n; i++) {
      const Sha256::Hash hash = sha.end(i, pieces[i] + whole, size - whole);
      std::copy(hash.begin(), hash.end(), hashes + i * hash.size());
    }
  } while (at < n);
}

}  // namespace titan
