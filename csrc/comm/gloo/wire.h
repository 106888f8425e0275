// What processes say to the store, byte by byte: a greeting in which both sides prove that they know the token, without saying it, then frames.
#pragma once
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace titan::comm::gloo {

/// Of all that is said here; a change makes it another.
constexpr uint32_t STORE_VERSION = 1;
constexpr size_t TEXT_BYTES = 512;
constexpr size_t ADDRESS_BYTES = 64;
constexpr size_t MOST_FRAME_BYTES = 1 << 20;

/// Milliseconds: from one sign of life to the next; without one until a process counts as lost; that a stranger has for its greeting.
constexpr int BEAT_MS = 1000, LOST_MS = 4000, GREETING_MS = 5000;

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Mac = std::array<uint8_t, 32>;
using Nonce = std::array<uint8_t, 32>;

/// The store speaks first.
struct Challenge {
  char magic[8];
  uint32_t version, unused;
  Nonce nonce;
};
struct Hello {
  char magic[8];
  uint32_t version, rank, size, unused;
  char address[ADDRESS_BYTES];  // at which others reach the process
  Nonce nonce;
  Mac mac;
};
struct Welcome {
  uint32_t refused;
  char why[TEXT_BYTES];
  Mac mac;  // the store knows the token too
};
constexpr char MAGIC[8] = {'t', 'i', 't', 'a', 'n', 's', 't', '\n'};

/// HMAC with SHA-256 (RFC 2104).
Mac hmac(const std::string& secret, const std::string& message);
/// Proof of the token, over both nonces and what is said.
Mac proof_of_hello(const std::string& token, const Nonce& challenge, const Hello& hello);
Mac proof_of_welcome(const std::string& token, const Nonce& challenge, const Hello& hello, const Welcome& welcome);
/// Takes as long for any two.
bool same(const Mac& a, const Mac& b);
Nonce random_nonce();

enum class Frame : uint32_t { beat = 1, set, get, value, give_up, lost, leave };

/// A frame: its kind, then the length of its body, then the body.
std::string frame(Frame kind, const std::string& body = {});
/// Takes the first whole frame off what was received; false where there is none yet.
/// @throws Error where there cannot be one.
bool take_frame(std::string& received, Frame* kind, std::string* body);
/// A body of two parts, of a key and its value.
std::string pair(const std::string& key, const std::string& value);
bool split(const std::string& body, std::string* key, std::string* value);

/// A socket; closed with this.
class Socket {
 public:
  explicit Socket(int descriptor = -1) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(other.descriptor_) { other.descriptor_ = -1; }
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

/// A TCP address. Throws an Error where a name has none.
struct Address {
  sockaddr_storage storage = {};
  socklen_t length = 0;
  static Address of(const std::string& host, uint16_t port);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  std::string host() const;  // in digits
  uint16_t port() const;
};
Address own_address(const Socket& socket);
void set_up(const Socket& socket);  // non-blocking, and without delay
std::string error_text(int code);
uint64_t now_ms();

/// Tells how long this process itself was halted, with all its threads, between two looks: others are not to blame for that time.
class Halts {
 public:
  /// Milliseconds since the last look beyond what a busy machine explains.
  uint64_t look();

 private:
  uint64_t last_ = now_ms();
};

}  // namespace titan::comm::gloo
