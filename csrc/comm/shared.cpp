#include "shared.h"

#include <fcntl.h>
#ifdef __linux__
#include <linux/futex.h>
#endif
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <climits>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <random>

#include "../clock.h"
#include "../failure.h"
#include "combine.h"
#include "pieces.h"

namespace titan::comm {
namespace {

constexpr uint64_t HUGE_PAGE = uint64_t{2} << 20;

constexpr const char* FIX = "; expected: memory that the ranks of a host can share; fix: start them in one container, or TITAN_EXCHANGE=messages does without";

[[noreturn]] void refuse(const std::string& what) { throw Failure(TITAN_STATUS_COMMUNICATION, text(what, ": ", std::strerror(errno), FIX)); }

/// A name that no other window of the host has.
std::string name_of(uint64_t nonce) {
  char name[48];
  std::snprintf(name, sizeof name, "libtitan arena %016" PRIx64, nonce);
  return name;
}

uint64_t random_number() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

/// A descriptor, closed at the end.
struct File {
  const int number;
  explicit File(int number) : number(number) {}
  ~File() {
    if (number >= 0) close(number);
  }
  File(const File&) = delete;
};

/// Maps a file at a multiple of 2 MB, so that the system may use huge pages.
char* map(int descriptor, uint64_t bytes, int protection) {
  char* reserved = static_cast<char*>(mmap(nullptr, bytes + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (reserved == MAP_FAILED) refuse(text("cannot reserve ", bytes, " bytes of addresses"));
  char* data = reserved + (HUGE_PAGE - reinterpret_cast<uintptr_t>(reserved) % HUGE_PAGE) % HUGE_PAGE;
  if (data != reserved) munmap(reserved, static_cast<size_t>(data - reserved));
  if (data != reserved + HUGE_PAGE) munmap(data + bytes, static_cast<size_t>(reserved + HUGE_PAGE - data));
  if (mmap(data, bytes, protection, MAP_SHARED | MAP_FIXED, descriptor, 0) == MAP_FAILED) refuse(text("cannot map ", bytes, " bytes of shared memory"));
#ifdef MADV_HUGEPAGE
  if (bytes >= HUGE_PAGE) madvise(data, bytes, MADV_HUGEPAGE);
#endif
  return data;
}

uint64_t whole_pages(uint64_t bytes) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return std::max(page, (bytes + page - 1) / page * page);
}

/// Sleeps for 5 ms at most, as long as a word that several processes see has this value, or until it is woken there.
void sleep_while(const std::atomic<uint32_t>& word, [[maybe_unused]] uint32_t value) {
#ifdef __linux__
  const timespec most = {0, 5'000'000};
  syscall(SYS_futex, &word, FUTEX_WAIT, value, &most, nullptr, 0);
#else
  sched_yield();
#endif
}

void wake_all([[maybe_unused]] const std::atomic<uint32_t>& word) {
#ifdef __linux__
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
#endif
}

uint64_t bytes_of(const titan_comm_call& call) { return size_of(DType{call.dtype}); }

}  // namespace

// A file without a name, which other processes open through /proc: it has no limit of its own, as /dev/shm has, and is gone with the last process.
Window::Window(uint64_t bytes) : bytes_(whole_pages(bytes)), nonce_(random_number()) {
#ifdef __linux__
  descriptor_ = static_cast<int>(syscall(SYS_memfd_create, name_of(nonce_).c_str(), 1u /* close on exec */));
#else
  descriptor_ = -1;
  errno = ENOSYS;
#endif
  if (descriptor_ < 0) refuse("cannot make shared memory");
  if (ftruncate(descriptor_, static_cast<off_t>(bytes_))) {
    close(descriptor_);
    refuse(text("cannot make ", bytes_, " bytes of shared memory"));
  }
  try {
    data_ = map(descriptor_, bytes_, PROT_READ | PROT_WRITE);
  } catch (...) {
    close(descriptor_);
    throw;
  }
}

Window::~Window() {
  settle();
  munmap(data_, bytes_);
}

void Window::settle() {
  if (descriptor_ >= 0) close(descriptor_);
  descriptor_ = -1;
}

WindowPlace Window::place() const { return {getpid(), descriptor_, bytes_, nonce_}; }

Mapping::Mapping(const WindowPlace& place) : bytes_(place.bytes) {
#ifdef __linux__
  // It is looked at before it is opened, since opening may do things to what is no memory. The first descriptor stays with what it found.
  const std::string path = text("/proc/", place.pid, "/fd/", place.descriptor);
  const File found(open(path.c_str(), O_PATH | O_CLOEXEC));
  if (found.number < 0) refuse(text("cannot open the memory of process ", place.pid, " (", path, ")"));
  const std::string own_path = text("/proc/self/fd/", found.number), expected = text("/memfd:", name_of(place.nonce), " (deleted)");
  char name[256];
  const ssize_t length = readlink(own_path.c_str(), name, sizeof name);
  if (length < 0) refuse(text("cannot read what ", path, " is"));
  if (std::string_view(name, static_cast<size_t>(length)) != expected)
    throw Failure(TITAN_STATUS_COMMUNICATION, text(path, " is ", std::string(name, static_cast<size_t>(length)), ", and not the memory of another rank (", expected, ")", FIX));
  const File file(open(own_path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.number < 0) refuse(text("cannot open the memory of process ", place.pid, " (", path, ")"));
  data_ = map(file.number, bytes_, PROT_READ);
#else
  errno = ENOSYS;
  refuse("cannot open the memory of another process");
#endif
}

Mapping::~Mapping() { munmap(data_, bytes_); }

// Ranks of one host share its processors, and have kernels to run meanwhile: who waits sleeps until the one it waits for has come.
bool SharedGroup::meet(const titan_comm_wait& wait) {
  meetings_++;
  auto& own = members_[static_cast<size_t>(self_)].seat->arrived;
  own.store(meetings_, std::memory_order_release);
  wake_all(own);
  for (const Member& member : members_) {
    const auto& arrived = member.seat->arrived;
    uint32_t seen;
    for (int looked = 0; is_before(seen = arrived.load(std::memory_order_acquire)); looked++) {
      if (looked < 200) continue;
      if (!wait.go_on(wait.context)) return false;
      sleep_while(arrived, seen);
    }
  }
  return true;
}

std::vector<int> SharedGroup::missing() const {
  std::vector<int> list;
  for (size_t m = 0; m < members_.size(); m++)
    if (is_before(members_[m].seat->arrived.load(std::memory_order_acquire))) list.push_back(members_[m].number);
  return list;
}

namespace {

bool agree(const Post::Tensor& a, const Post::Tensor& b) {
  return a.outer == b.outer && a.chunk == b.chunk && a.in_run == b.in_run && a.out_run == b.out_run && a.from == b.from && a.to == b.to;
}

}  // namespace

std::string SharedGroup::disagreement() const {
  const Post& own = members_[static_cast<size_t>(self_)].seat->post;
  for (size_t m = 0; m < members_.size(); m++) {
    const Post& other = members_[m].seat->post;
    bool same = own.kind == other.kind && own.dtype == other.dtype && own.by == other.by && own.num_tensors == other.num_tensors;
    for (uint32_t i = 0; same && i < own.num_tensors; i++) same = agree(own.tensors[i], other.tensors[i]);
    if (!same) return text("member ", members_[m].number, " of the group is at another collective");
  }
  return "";
}

const char* SharedGroup::in_of(size_t member, uint32_t i) const {
  const auto& tensor = members_[member].seat->post.tensors[i];
  return (*members_[member].windows)[tensor.in_window] + tensor.in_offset;
}

const char* SharedGroup::out_of(size_t member, uint32_t i) const {
  const auto& tensor = members_[member].seat->post.tensors[i];
  return (*members_[member].windows)[tensor.out_window] + tensor.out_offset;
}

void SharedGroup::gather(const titan_comm_tensor& tensor, uint32_t i, uint64_t size) {
  const uint64_t piece = tensor.chunk * size, row = piece * members_.size();
  for (size_t m = 0; m < members_.size(); m++) {
    const char* from = in_of(m, i);
    char* to = static_cast<char*>(tensor.out) + m * piece;
    for (uint64_t o = 0; o < tensor.outer; o++) std::memcpy(to + o * row, from + o * piece, piece);
  }
}

void SharedGroup::shift(const titan_comm_tensor& tensor, uint32_t i, uint64_t size) {
  const size_t members = members_.size(), before = (static_cast<size_t>(self_) + members - 1) % members;
  const char* from = in_of(before, i);
  const uint64_t from_step = members_[before].seat->post.tensors[i].in_step * size, to_step = tensor.out_step * size;
  for (uint64_t o = 0; o < tensor.outer; o++) std::memcpy(static_cast<char*>(tensor.out) + o * to_step, from + o * from_step, tensor.chunk * size);
}

/// Each member's piece of `in` for this one, to where `out` has pieces of that member.
void SharedGroup::transpose(const titan_comm_tensor& tensor, uint32_t i, uint64_t size) {
  const uint64_t members = members_.size(), total = tensor.outer * tensor.chunk;
  for (size_t m = 0; m < members_.size(); m++) {
    const char* from = in_of(m, i) + static_cast<uint64_t>(self_) * tensor.in_run * size;
    char* to = static_cast<char*>(tensor.out) + m * tensor.out_run * size;
    for (uint64_t at = 0; at < total; at += tensor.chunk) {
      const auto place = [&](uint64_t run) { return (at / run * run * members + at % run) * size; };
      std::memcpy(to + place(tensor.out_run), from + place(tensor.in_run), tensor.chunk * size);
    }
  }
}

void SharedGroup::scatter(const titan_comm_call& call, uint32_t i, uint64_t size) {
  const titan_comm_tensor& tensor = call.tensors[i];
  const uint64_t piece = tensor.chunk * size, row = piece * members_.size();
  for (uint64_t o = 0; o < tensor.outer; o++) {
    for (size_t m = 0; m < members_.size(); m++) parts_[m] = in_of(m, i) + o * row + static_cast<uint64_t>(self_) * piece;
    combine(DType{call.dtype}, call.by, parts_.data(), static_cast<int>(parts_.size()), static_cast<char*>(tensor.out) + o * piece, static_cast<int64_t>(tensor.chunk));
  }
}

void SharedGroup::reduce_piece(const titan_comm_call& call, uint32_t i, uint64_t size) {
  const titan_comm_tensor& tensor = call.tensors[i];
  const uint64_t self = static_cast<uint64_t>(self_), start = piece_start(tensor.chunk, members_.size(), self), end = piece_start(tensor.chunk, members_.size(), self + 1);
  for (size_t m = 0; m < members_.size(); m++) parts_[m] = in_of(m, i) + start * size;
  combine(DType{call.dtype}, call.by, parts_.data(), static_cast<int>(parts_.size()), static_cast<char*>(tensor.out) + start * size, static_cast<int64_t>(end - start));
}

void SharedGroup::gather_pieces(const titan_comm_tensor& tensor, uint32_t i, uint64_t size) {
  for (size_t m = 0; m < members_.size(); m++) {
    const uint64_t start = piece_start(tensor.chunk, members_.size(), m), end = piece_start(tensor.chunk, members_.size(), m + 1);
    if (m != static_cast<size_t>(self_)) std::memcpy(static_cast<char*>(tensor.out) + start * size, out_of(m, i) + start * size, (end - start) * size);
  }
}

titan_comm_result SharedGroup::post(const titan_comm_call& call, const std::vector<uint64_t>& window_bytes, const titan_comm_wait& wait, std::string* error) {
  const Member& self = members_[static_cast<size_t>(self_)];
  const auto locate = [&](const void* address, uint32_t* window, uint64_t* offset) {
    const auto* at = static_cast<const char*>(address);
    for (uint32_t w = 0; w < window_bytes.size(); w++) {
      const char* base = (*self.windows)[w];
      if (std::less_equal<>()(base, at) && std::less<>()(at, base + window_bytes[w])) return *window = w, *offset = static_cast<uint64_t>(at - base), true;
    }
    return false;
  };
  Post& post = self.seat->post;
  post = {call.kind, call.dtype, call.by, call.num_tensors, {}};
  for (uint32_t i = 0; i < call.num_tensors; i++) {
    auto& place = post.tensors[i];
    place.outer = call.tensors[i].outer, place.chunk = call.tensors[i].chunk, place.in_step = call.tensors[i].in_step;
    place.in_run = call.tensors[i].in_run, place.out_run = call.tensors[i].out_run, place.from = call.tensors[i].from, place.to = call.tensors[i].to;
    if (!place.outer || !place.chunk) continue;
    // In an exchange most members neither send nor receive a tensor.
    const auto seen = [&](const void* address, uint32_t* window, uint64_t* offset) { return (call.kind == titan_comm_exchange && !address) || locate(address, window, offset); };
    if (!seen(call.tensors[i].in, &place.in_window, &place.in_offset) || !seen(call.tensors[i].out, &place.out_window, &place.out_offset)) {
      *error = "a tensor lies in memory that the other ranks do not see";
      return TITAN_COMM_FAILED;
    }
  }
  if (!meet(wait)) return TITAN_COMM_GAVE_UP;
  *error = disagreement();
  return error->empty() ? TITAN_COMM_OK : TITAN_COMM_FAILED;
}

titan_comm_result SharedGroup::run(const titan_comm_call& call, const std::vector<uint64_t>& window_bytes, const titan_comm_wait& wait, std::string* error) {
  const uint64_t size = bytes_of(call);
  for (uint32_t first = 0; first < call.num_tensors; first += MOST_POSTED) {
    titan_comm_call part = call;
    part.tensors += first;
    part.num_tensors = std::min<uint32_t>(MOST_POSTED, call.num_tensors - first);
    if (const titan_comm_result result = post(part, window_bytes, wait, error); result != TITAN_COMM_OK) return result;
    if (!first) met_ns_ = now_ns();
    for (uint32_t i = 0; i < part.num_tensors; i++) {
      const auto& tensor = part.tensors[i];
      if (!tensor.outer || !tensor.chunk) continue;
      if (part.kind == titan_comm_all_gather) gather(tensor, i, size);
      else if (part.kind == titan_comm_reduce_scatter) scatter(part, i, size);
      else if (part.kind == titan_comm_ring_shift) shift(tensor, i, size);
      else if (part.kind == titan_comm_all_to_all) transpose(tensor, i, size);
      else if (part.kind == titan_comm_all_reduce) reduce_piece(part, i, size);
      else if (tensor.out) std::memcpy(tensor.out, in_of(tensor.from, i), tensor.chunk);  // an exchange, and this rank receives it
    }
    if (part.kind == titan_comm_all_reduce) {
      if (!meet(wait)) return TITAN_COMM_GAVE_UP;
      for (uint32_t i = 0; i < part.num_tensors; i++)
        if (part.tensors[i].chunk) gather_pieces(part.tensors[i], i, size);
    }
    // Nobody changes what others may still be reading.
    if (!meet(wait)) return TITAN_COMM_GAVE_UP;
  }
  return TITAN_COMM_OK;
}

}  // namespace titan::comm
