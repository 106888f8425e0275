// Talks to the store's port as strangers do, and as processes that know the token and then go wrong: random bytes, cut and changed greetings and
// frames. Two honest processes exchange values meanwhile, and must see no loss but that of a process that got in. Built with
// -DTITAN_SANITIZE=address, whatever else goes wrong ends the process.
//   fuzz_store [--seconds 60] [--seed 1]
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "../comm/gloo/client.h"
#include "../comm/gloo/server.h"

using namespace titan::comm::gloo;

namespace {

constexpr const char* HERE = "127.0.0.1";
constexpr uint32_t SIZE = 3;  // ranks; the last is the one that goes wrong

[[noreturn]] void finding(const std::string& what) {
  std::fprintf(stderr, "fuzz_store: %s\n", what.c_str());
  std::exit(1);
}

std::string random_bytes(std::mt19937& random, size_t n) {
  std::string text(n, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

void mutate(std::mt19937& random, std::string& text) {
  for (uint32_t i = random() % 4; i-- && !text.empty();) text[random() % text.size()] = static_cast<char>(random());
  if (random() % 4 == 0) text.resize(random() % (text.size() + 1));
  if (random() % 8 == 0) text += random_bytes(random, random() % 300);
}

/// Frames as a process would send them, some of them changed.
std::string frames(std::mt19937& random) {
  std::string all;
  for (uint32_t i = random() % 6; i--;) {
    const auto kind = static_cast<Frame>(random() % 9);
    std::string one = frame(kind, random() % 2 ? pair(random_bytes(random, random() % 20), random_bytes(random, random() % 100)) : random_bytes(random, random() % 50));
    if (random() % 3 == 0) mutate(random, one);
    all += one;
  }
  return all;
}

/// True where it has proved that it knows the token.
bool talk(std::mt19937& random, uint16_t port, bool knows) {
  Address address = Address::of(HERE, port);
  Socket own(socket(address.storage.ss_family, SOCK_STREAM, 0));
  if (connect(own.get(), address.get(), address.length)) finding("nobody listens any more");
  Challenge challenge;
  if (recv(own.get(), &challenge, sizeof challenge, MSG_WAITALL) != sizeof challenge) finding("the store says nothing");
  Hello hello = {};
  std::memcpy(hello.magic, MAGIC, sizeof MAGIC);
  hello.version = STORE_VERSION, hello.rank = SIZE - 1, hello.size = SIZE;
  hello.mac = proof_of_hello(knows ? "secret" : "another", challenge.nonce, hello);
  std::string text(reinterpret_cast<const char*>(&hello), sizeof hello);
  if (!knows && random() % 2) mutate(random, text);
  text += frames(random);
  if (!knows && random() % 3 == 0) text = random_bytes(random, random() % 2000);
  ::send(own.get(), text.data(), text.size(), MSG_NOSIGNAL);
  if (random() % 2) shutdown(own.get(), SHUT_WR);
  char answer[4096];
  if (random() % 2) [[maybe_unused]] const ssize_t n = recv(own.get(), answer, sizeof answer, MSG_DONTWAIT);
  return knows;
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 60;
  uint32_t seed = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!std::strcmp(argv[i], "--seconds")) seconds = std::atof(argv[i + 1]);
    else if (!std::strcmp(argv[i], "--seed")) seed = static_cast<uint32_t>(std::atoi(argv[i + 1]));
    else finding(std::string("unknown argument ") + argv[i]);
  }
  std::mt19937 random(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  uint64_t talks = 0, stores = 0;
  for (; std::chrono::steady_clock::now() < end; stores++) {
    StoreServer server(HERE, 0, SIZE, "secret");
    StoreClient one({HERE, server.port(), 0, SIZE, "secret", ""}), two({HERE, server.port(), 1, SIZE, "secret", ""});
    const bool goes_wrong = stores % 2;
    std::string how;
    for (int i = 0; i < 200 && std::chrono::steady_clock::now() < end; i++, talks++) {
      talk(random, server.port(), false);
      const std::string key = std::to_string(i);
      one.set(key, key);
      if (two.get(key) != key) finding("a value has changed");
      if (one.lost(&how) >= 0 || two.lost(&how) >= 0) finding("a stranger made the store say: rank " + std::to_string(one.lost(&how)) + " " + how);
    }
    if (goes_wrong) {
      talk(random, server.port(), true);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      const int lost = one.lost(&how);
      if (lost >= 0 && lost != static_cast<int>(SIZE) - 1) finding("rank " + std::to_string(lost) + " is lost: " + how);
    }
    one.leave();
    two.leave();
  }
  std::printf("fuzz_store: %llu talks with %llu stores, seed %u: ok\n", static_cast<unsigned long long>(talks), static_cast<unsigned long long>(stores), seed);
}
