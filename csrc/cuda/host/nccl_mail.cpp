#include "nccl_mail.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "../../failure.h"

namespace titan::cuda::host {
namespace {

constexpr uint64_t BOX_BYTES = uint64_t{64} << 20;  // takes memory as far as it is written
constexpr uint64_t HEAD_BYTES = 1 << 16, ALL_BYTES = HEAD_BYTES + MOST_RANKS * MOST_RANKS * BOX_BYTES;

}  // namespace

struct Mail::Head {
  uint64_t nonce;
  std::atomic<uint32_t> joined;  // a bit for each rank
  struct Box {
    std::atomic<uint64_t> sent, taken;
  } boxes[MOST_RANKS][MOST_RANKS];
};

MailPlace Mail::make() {
  std::random_device random;
  MailPlace place = {getpid(), -1, uint64_t{random()} << 32 | random()};
#ifdef __linux__
  place.descriptor = static_cast<int32_t>(syscall(SYS_memfd_create, "played NCCL", 1u /* close on exec */));
#endif
  static_assert(sizeof(Head) <= HEAD_BYTES);
  if (ftruncate(place.descriptor, static_cast<off_t>(ALL_BYTES)) || pwrite(place.descriptor, &place.nonce, sizeof place.nonce, 0) != sizeof place.nonce) place.descriptor = -1;
  return place;
}

std::shared_ptr<Mail> Mail::join(const MailPlace& place, int rank, int ranks, std::string* why) {
  const int descriptor = open(text("/proc/", place.pid, "/fd/", place.descriptor).c_str(), O_RDWR | O_CLOEXEC);
  uint64_t nonce = 0;
  if (descriptor < 0 || pread(descriptor, &nonce, sizeof nonce, 0) != sizeof nonce || nonce != place.nonce) {
    if (descriptor >= 0) close(descriptor);
    return *why = place.pid ? "" : "the unique id is none", nullptr;
  }
  void* memory = mmap(nullptr, ALL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
  close(descriptor);
  if (memory == MAP_FAILED) return *why = "memory cannot be shared", nullptr;
  std::shared_ptr<Mail> mail(new Mail(rank, ranks, static_cast<Head*>(memory), place.pid == getpid() ? place.descriptor : -1));
  if (mail->head_->joined.fetch_or(1u << rank) & 1u << rank) return *why = text("rank ", rank, " has joined already"), nullptr;
  return mail;
}

Mail::~Mail() {
  munmap(head_, ALL_BYTES);
  if (descriptor_ >= 0) close(descriptor_);
}

bool Mail::all_have_joined() const { return head_->joined.load() == (1u << ranks) - 1; }

char* Mail::box(int from, int to) const { return reinterpret_cast<char*>(head_) + HEAD_BYTES + static_cast<uint64_t>(from * MOST_RANKS + to) * BOX_BYTES; }

bool Mail::may_send(int to) const {
  const auto& box = head_->boxes[rank][to];
  return box.sent.load() == box.taken.load();
}

Letter* Mail::write(int to, Letter* behind, uint64_t bytes) {
  char* const begin = box(rank, to);
  auto* letter = behind ? const_cast<Letter*>(behind->next()) : reinterpret_cast<Letter*>(begin);
  if (reinterpret_cast<char*>(letter + 2) + bytes > begin + BOX_BYTES) return nullptr;
  if (behind) behind->last = 0;
  letter->bytes = bytes;
  letter->last = 1;
  return letter;
}

void Mail::send(int to) { head_->boxes[rank][to].sent++; }

bool Mail::has_come(int from) const {
  const auto& box = head_->boxes[from][rank];
  return box.sent.load() != box.taken.load();
}

const Letter* Mail::read(int from) const { return reinterpret_cast<const Letter*>(box(from, rank)); }

void Mail::taken(int from) { head_->boxes[from][rank].taken++; }

}  // namespace titan::cuda::host
