#include "client.h"

#include <poll.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>

namespace titan::comm::gloo {
namespace {

constexpr int RETRY_MS = 100;

/// All of a message of known size, within the time that a greeting may take. False where the other side hangs up.
bool receive_all(const Socket& socket, void* data, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    pollfd polled = {socket.get(), POLLIN, 0};
    if (poll(&polled, 1, GREETING_MS) <= 0) return false;
    const ssize_t n = recv(socket.get(), static_cast<char*>(data) + at, bytes - at, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (n > 0) at += static_cast<size_t>(n);
  }
  return true;
}

/// A connection, or none where nobody listens there yet.
Socket connect_to(const StoreClient::Place& place) {
  Address to = Address::of(place.host, place.port);
  Socket socket(::socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!place.from.empty()) {
    Address from = Address::of(place.from, 0);
    if (bind(socket.get(), from.get(), from.length)) throw Error(place.from + " is no address of this host: " + error_text(errno) + "; expected: one at which the other hosts reach it; fix: name that one, in --hosts or TITAN_ADDRESS");
  }
  set_up(socket);
  if (connect(socket.get(), to.get(), to.length) && errno != EINPROGRESS) return Socket();
  pollfd polled = {socket.get(), POLLOUT, 0};
  int code = 0;
  socklen_t length = sizeof code;
  if (poll(&polled, 1, GREETING_MS) <= 0 || getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &code, &length) || code) return Socket();
  return socket;
}

}  // namespace

StoreClient::StoreClient(const Place& place) : store_host_(place.host) {
  join(place);
  if (pipe2(wake_, O_CLOEXEC | O_NONBLOCK)) throw Error("no pipe: " + error_text(errno));
  thread_ = std::thread([this] { serve(); });
}

StoreClient::~StoreClient() {
  stop_ = true;
  post({});
  thread_.join();
  for (const int end : wake_) close(end);
}

void StoreClient::join(const Place& place) {
  const std::string where = place.host + ":" + std::to_string(place.port);
  for (;; std::this_thread::sleep_for(std::chrono::milliseconds(RETRY_MS))) {
    socket_ = connect_to(place);
    if (socket_.get() < 0) continue;  // rank 0 is not there yet
    Challenge challenge;
    if (!receive_all(socket_, &challenge, sizeof challenge)) continue;
    if (std::memcmp(challenge.magic, MAGIC, sizeof MAGIC)) throw Error("what listens at " + where + " is no store of libtitan; expected: rank 0; fix: set MASTER_PORT to a free port on all hosts");
    Hello hello = {};
    std::memcpy(hello.magic, MAGIC, sizeof MAGIC);
    hello.version = STORE_VERSION;
    hello.rank = place.rank;
    hello.size = place.size;
    address_ = own_address(socket_).host();
    std::strncpy(hello.address, address_.c_str(), ADDRESS_BYTES - 1);
    hello.nonce = random_nonce();
    hello.mac = proof_of_hello(place.token, challenge.nonce, hello);
    Welcome welcome;
    if (::send(socket_.get(), &hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello || !receive_all(socket_, &welcome, sizeof welcome)) continue;
    welcome.why[TEXT_BYTES - 1] = 0;
    if (welcome.refused) throw Error("the store at " + where + " refuses rank " + std::to_string(place.rank) + ": " + welcome.why);
    if (!same(welcome.mac, proof_of_welcome(place.token, challenge.nonce, hello, welcome))) throw Error("the store at " + where + " does not know the token; expected: rank 0 of this run");
    return;
  }
}

void StoreClient::serve() {
  uint64_t heard = now_ms(), beaten = 0;
  Halts halts;
  while (!stop_) {
    std::string out;
    {
      std::lock_guard lock(mutex_);
      if (now_ms() - beaten >= BEAT_MS && !left_) sending_ += frame(Frame::beat), beaten = now_ms();
      const ssize_t n = sending_.empty() ? 0 : ::send(socket_.get(), sending_.data(), sending_.size(), MSG_NOSIGNAL);
      if (n > 0) sending_.erase(0, static_cast<size_t>(n));
      if (sending_.empty()) changed_.notify_all();
      out = sending_;
    }
    pollfd polled[2] = {{socket_.get(), static_cast<short>(out.empty() ? POLLIN : POLLIN | POLLOUT), 0}, {wake_[0], POLLIN, 0}};
    poll(polled, 2, BEAT_MS / 4);
    char bytes[64];
    while (read(wake_[0], bytes, sizeof bytes) > 0) {}
    heard += halts.look();
    const bool hears = polled[0].revents & (POLLIN | POLLHUP | POLLERR);
    if (hears && !receive_some()) return lose(0, "on " + store_host_ + " has ended without a word");
    if (hears) heard = now_ms();
    if (heard + LOST_MS < now_ms()) return lose(0, "on " + store_host_ + " has not been heard of for " + std::to_string(LOST_MS / 1000) + " s: it hangs, or its host, this host or the network is down");
  }
}

/// False where the connection is over.
bool StoreClient::receive_some() {
  char bytes[1 << 16];
  const ssize_t n = recv(socket_.get(), bytes, sizeof bytes, 0);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
  if (n < 0) return true;
  received_.append(bytes, static_cast<size_t>(n));
  try {
    Frame kind;
    std::string body, key, value;
    while (take_frame(received_, &kind, &body)) {
      if (kind == Frame::beat || !split(body, &key, &value)) continue;
      if (kind == Frame::lost) lose(std::atoi(key.c_str()), value);
      std::lock_guard lock(mutex_);
      if (kind == Frame::value) values_[key] = value;
      changed_.notify_all();
    }
  } catch (const Error&) {
    return false;
  }
  return true;
}

void StoreClient::lose(int rank, const std::string& how) {
  std::lock_guard lock(mutex_);
  if (lost_ >= 0 || left_) return;
  how_ = how;
  lost_ = rank;
  changed_.notify_all();
}

void StoreClient::post(const std::string& frame) {
  std::lock_guard lock(mutex_);
  sending_ += frame;
  const char byte = 0;
  [[maybe_unused]] const ssize_t written = write(wake_[1], &byte, 1);
}

/// Waits until all is sent.
void StoreClient::drain(int ms) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(ms), [&] { return sending_.empty(); });
}

void StoreClient::set(const std::string& key, const std::string& value) { post(frame(Frame::set, pair(key, value))); }

std::string StoreClient::get(const std::string& key) {
  post(frame(Frame::get, key));
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return lost_ >= 0 || values_.count(key); });
  const auto found = values_.find(key);
  if (found == values_.end()) throw Error("rank " + std::to_string(lost_) + " " + how_);
  std::string value = std::move(found->second);
  values_.erase(found);
  return value;
}

void StoreClient::give_up(const std::string& why) {
  post(frame(Frame::give_up, why));
  drain(1000);
}

int StoreClient::lost(std::string* how) {
  if (lost_ < 0) return -1;
  std::lock_guard lock(mutex_);
  *how = how_;
  return lost_;
}

void StoreClient::leave() {
  {
    std::lock_guard lock(mutex_);
    left_ = true;
  }
  post(frame(Frame::leave));
  drain(1000);
}

}  // namespace titan::comm::gloo
