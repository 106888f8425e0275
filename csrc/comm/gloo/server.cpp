#include "server.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace titan::comm::gloo {
namespace {

constexpr size_t MOST_STRANGERS = 128;
constexpr int TICK_MS = 200;
constexpr size_t MOST_VALUES = 1 << 20, MOST_UNREAD_BYTES = size_t{64} << 20;

}  // namespace

StoreServer::StoreServer(const std::string& host, uint16_t port, uint32_t size, std::string token)
    : size_(size), token_(std::move(token)), joined_(size), left_(size) {
  Address address = Address::of(host, port);
  listening_ = Socket(socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  setsockopt(listening_.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (listening_.get() < 0 || bind(listening_.get(), address.get(), address.length) || listen(listening_.get(), SOMAXCONN)) {
    const int code = errno;
    const std::string where = host + ":" + std::to_string(port);
    if (code == EADDRNOTAVAIL) throw Error("rank 0 cannot listen at " + where + ", which is no address of its host; expected: the host of rank 0; fix: put that host first in --hosts, or set MASTER_ADDR to it");
    if (code == EADDRINUSE) throw Error("rank 0 cannot listen at " + where + ", where another program does; expected: a free port; fix: set MASTER_PORT to another on all hosts, or end that program");
    throw Error("rank 0 cannot listen at " + where + ": " + error_text(code));
  }
  set_up(listening_);
  port_ = own_address(listening_).port();
  thread_ = std::thread([this] { serve(); });
}

StoreServer::~StoreServer() {
  stop_ = true;
  thread_.join();
}

void StoreServer::serve() {
  std::vector<pollfd> polled;
  Halts halts;
  while (!stop_) {
    polled.assign(1, {listening_.get(), POLLIN, 0});
    for (const Peer& peer : peers_) polled.push_back({peer.socket.get(), static_cast<short>(peer.out.empty() ? POLLIN : POLLIN | POLLOUT), 0});
    poll(polled.data(), polled.size(), TICK_MS);
    size_t i = 1;
    const uint64_t halted = halts.look();
    for (auto peer = peers_.begin(); peer != peers_.end(); i++) {
      peer->heard += halted;
      bool lives = work(*peer, polled[i].revents);
      const bool is_stranger = peer->rank == NOBODY;
      if (!lives && !is_stranger) lose(*peer, "has ended without a word");
      else if (lives && peer->heard + static_cast<uint64_t>(is_stranger ? GREETING_MS : LOST_MS) < now_ms()) {
        lives = false;
        if (!is_stranger) lose(*peer, "has not been heard of for " + std::to_string(LOST_MS / 1000) + " s: it hangs, or its host or the network is down");
      }
      peer = lives ? std::next(peer) : peers_.erase(peer);
    }
    if (polled[0].revents) accept_all();
    over_ = !lost_.empty() || std::all_of(left_.begin(), left_.end(), [](char left) { return left; });
  }
}

void StoreServer::accept_all() {
  while (true) {
    Socket socket(accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket.get() < 0) return;
    const auto is_stranger = [](const Peer& peer) { return peer.rank == NOBODY; };
    // Of many strangers the one that has been here longest goes.
    if (static_cast<size_t>(std::count_if(peers_.begin(), peers_.end(), is_stranger)) >= MOST_STRANGERS) peers_.erase(std::find_if(peers_.begin(), peers_.end(), is_stranger));
    set_up(socket);
    Peer& peer = peers_.emplace_back();
    peer.socket = std::move(socket);
    peer.heard = now_ms();
    peer.nonce = random_nonce();
    Challenge challenge = {{}, STORE_VERSION, 0, peer.nonce};
    std::memcpy(challenge.magic, MAGIC, sizeof MAGIC);
    peer.out.assign(reinterpret_cast<const char*>(&challenge), sizeof challenge);
  }
}

bool StoreServer::work(Peer& peer, short events) {
  if (events & (POLLIN | POLLHUP | POLLERR)) {
    char bytes[1 << 16];
    const ssize_t n = recv(peer.socket.get(), bytes, sizeof bytes, 0);
    if (n > 0) peer.in.append(bytes, static_cast<size_t>(n));
    else if (n == 0 || (errno != EAGAIN && errno != EINTR)) return false;
    if (n > 0 && !take(peer)) return false;
  }
  while (!peer.out.empty()) {
    const ssize_t n = ::send(peer.socket.get(), peer.out.data(), peer.out.size(), MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    peer.out.erase(0, static_cast<size_t>(n));
  }
  return !peer.ends;
}

/// Deals with all that has come whole. False where the connection is over.
bool StoreServer::take(Peer& peer) {
  if (peer.ends) return peer.in.clear(), true;  // a stranger that has been refused, and still talks
  if (peer.rank == NOBODY) {
    // Who has another greeting is hung up on before it is complete.
    if (std::memcmp(peer.in.data(), MAGIC, std::min(peer.in.size(), sizeof MAGIC))) return false;
    if (peer.in.size() < sizeof(Hello)) return true;
    greet(peer);
    if (peer.rank == NOBODY) return true;
  }
  peer.heard = now_ms();
  try {
    Frame kind;
    std::string body;
    while (take_frame(peer.in, &kind, &body)) {
      if (kind == Frame::leave) left_[static_cast<size_t>(peer.rank)] = true;
      else answer(peer, kind, body);
    }
  } catch (const Error& error) {
    lose(peer, error.what());
    return false;
  }
  return peer.out.size() < MOST_UNREAD_BYTES;
}

void StoreServer::greet(Peer& peer) {
  Hello hello;
  std::memcpy(&hello, peer.in.data(), sizeof hello);
  peer.in.erase(0, sizeof hello);
  hello.address[ADDRESS_BYTES - 1] = 0;
  Welcome welcome = {};
  const auto refuse = [&](const std::string& why) {
    welcome.refused = 1;
    std::strncpy(welcome.why, why.c_str(), TEXT_BYTES - 1);
    peer.ends = true;
  };
  if (hello.version != STORE_VERSION) refuse("rank 0 is of another version of libtitan; expected: the same on all hosts");
  else if (!same(hello.mac, proof_of_hello(token_, peer.nonce, hello))) refuse("rank 0 has another token; expected: the same on all hosts; fix: set TITAN_TOKEN to one secret for all of them");
  else if (hello.size != size_) refuse("rank 0 is one of " + std::to_string(size_) + " ranks, this is one of " + std::to_string(hello.size) + "; expected: the same; fix: start all hosts with the same command");
  else if (hello.rank >= size_) refuse("there is no rank " + std::to_string(hello.rank) + " of " + std::to_string(size_));
  else if (joined_[hello.rank]) refuse("there is a rank " + std::to_string(hello.rank) + " already; expected: each rank once; fix: look for what is left of an earlier run, or number the hosts anew");
  if (!welcome.refused) {
    peer.rank = static_cast<int>(hello.rank);
    peer.address = hello.address;
    joined_[hello.rank] = true;
  }
  welcome.mac = proof_of_welcome(token_, peer.nonce, hello, welcome);
  peer.out.append(reinterpret_cast<const char*>(&welcome), sizeof welcome);
  if (!welcome.refused && !lost_.empty()) peer.out += lost_;
}

void StoreServer::answer(Peer& peer, Frame kind, const std::string& body) {
  std::string key, value;
  switch (kind) {
    case Frame::beat: peer.out += frame(Frame::beat); return;
    case Frame::give_up: lose(peer, "gave up: " + body.substr(0, TEXT_BYTES)); return;
    case Frame::get:
      if (const auto found = values_.find(body); found != values_.end()) peer.out += frame(Frame::value, pair(body, found->second));
      else asking_.emplace_back(peer.rank, body);
      return;
    case Frame::set:
      if (!split(body, &key, &value) || values_.size() >= MOST_VALUES) throw Error("sent what is no value");
      for (auto it = asking_.begin(); it != asking_.end();) {
        if (it->second != key) { ++it; continue; }
        for (Peer& other : peers_)
          if (other.rank == it->first) other.out += frame(Frame::value, pair(key, value));
        it = asking_.erase(it);
      }
      values_[key] = std::move(value);
      return;
    default: throw Error("sent a frame that only the store sends");
  }
}

/// The first process that is lost is told to all: what is lost behind that may only follow from it.
void StoreServer::lose(const Peer& peer, const std::string& how) {
  if (!lost_.empty() || left_[static_cast<size_t>(peer.rank)]) return;
  const std::string where = how.starts_with("gave up") ? "" : "on " + peer.address + " ";
  lost_ = frame(Frame::lost, pair(std::to_string(peer.rank), where + how));
  for (Peer& other : peers_)
    if (other.rank != NOBODY) other.out += lost_;
}

}  // namespace titan::comm::gloo
