#include "wire.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <random>
#include <system_error>
#include <utility>

#include "../../sha256.h"

namespace titan::comm::gloo {
namespace {

Mac sha256(const std::string& message) {
  Sha256 hash(1);
  const auto* data = reinterpret_cast<const uint8_t*>(message.data());
  const size_t whole = message.size() / Sha256::BLOCK * Sha256::BLOCK;
  if (whole) hash.add(&data, whole);
  return hash.end(0, data + whole, message.size() - whole);
}

std::string text_of(const Mac& mac) { return {reinterpret_cast<const char*>(mac.data()), mac.size()}; }

}  // namespace

Mac hmac(const std::string& secret, const std::string& message) {
  std::string key = secret.size() > Sha256::BLOCK ? text_of(sha256(secret)) : secret;
  key.resize(Sha256::BLOCK, '\0');
  std::string inner = key, outer = key;
  for (char& c : inner) c = static_cast<char>(c ^ 0x36);
  for (char& c : outer) c = static_cast<char>(c ^ 0x5c);
  return sha256(outer + text_of(sha256(inner + message)));
}

Mac proof_of_hello(const std::string& token, const Nonce& challenge, const Hello& hello) {
  const auto* said = reinterpret_cast<const char*>(&hello);
  return hmac(token, "hello" + text_of(challenge) + std::string(said, offsetof(Hello, mac)));
}

Mac proof_of_welcome(const std::string& token, const Nonce& challenge, const Hello& hello, const Welcome& welcome) {
  const auto* said = reinterpret_cast<const char*>(&welcome);
  return hmac(token, "welcome" + text_of(challenge) + text_of(hello.nonce) + std::string(said, offsetof(Welcome, mac)));
}

bool same(const Mac& a, const Mac& b) {
  uint8_t differs = 0;
  for (size_t i = 0; i < a.size(); i++) differs = static_cast<uint8_t>(differs | (a[i] ^ b[i]));
  return !differs;
}

Nonce random_nonce() {
  std::random_device device;
  Nonce nonce;
  for (uint8_t& byte : nonce) byte = static_cast<uint8_t>(device());
  return nonce;
}

std::string frame(Frame kind, const std::string& body) {
  const uint32_t head[2] = {static_cast<uint32_t>(kind), static_cast<uint32_t>(body.size())};
  return std::string(reinterpret_cast<const char*>(head), sizeof head) + body;
}

bool take_frame(std::string& received, Frame* kind, std::string* body) {
  uint32_t head[2];
  if (received.size() < sizeof head) return false;
  std::memcpy(head, received.data(), sizeof head);
  if (head[0] < static_cast<uint32_t>(Frame::beat) || head[0] > static_cast<uint32_t>(Frame::leave) || head[1] > MOST_FRAME_BYTES) throw Error("sent what is no frame");
  if (received.size() < sizeof head + head[1]) return false;
  *kind = static_cast<Frame>(head[0]);
  *body = received.substr(sizeof head, head[1]);
  received.erase(0, sizeof head + head[1]);
  return true;
}

std::string pair(const std::string& key, const std::string& value) {
  const auto length = static_cast<uint32_t>(key.size());
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + key + value;
}

bool split(const std::string& body, std::string* key, std::string* value) {
  uint32_t length = 0;
  if (body.size() < sizeof length) return false;
  std::memcpy(&length, body.data(), sizeof length);
  if (length > body.size() - sizeof length) return false;
  *key = body.substr(sizeof length, length);
  *value = body.substr(sizeof length + length);
  return true;
}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Socket::~Socket() {
  if (descriptor_ >= 0) close(descriptor_);
}

Address Address::of(const std::string& host, uint16_t port) {
  addrinfo hints = {}, *found = nullptr;
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  if (const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found)) throw Error("the name " + host + " has no address: " + gai_strerror(code));
  Address address;
  address.length = found->ai_addrlen;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return address;
}

std::string Address::host() const {
  char text[NI_MAXHOST] = {};
  getnameinfo(reinterpret_cast<const sockaddr*>(&storage), length, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
  return text;
}

uint16_t Address::port() const {
  return ntohs(storage.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port : reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

Address own_address(const Socket& socket) {
  Address address;
  address.length = sizeof address.storage;
  getsockname(socket.get(), address.get(), &address.length);
  return address;
}

void set_up(const Socket& socket) {
  const int yes = 1;
  fcntl(socket.get(), F_SETFL, fcntl(socket.get(), F_GETFL) | O_NONBLOCK);
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

std::string error_text(int code) { return std::error_code(code, std::generic_category()).message(); }

uint64_t now_ms() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

uint64_t Halts::look() {
  const uint64_t now = now_ms(), passed = now - last_;
  last_ = now;
  return passed > BEAT_MS ? passed : 0;
}

}  // namespace titan::comm::gloo
