// The store at which processes meet without MPI: who knows the token gets in, nobody else does or holds anybody up, and who is lost is named.
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "../comm/gloo/client.h"
#include "../comm/gloo/server.h"
#include "test.h"

using namespace titan::test;
using namespace titan::comm::gloo;

namespace {

constexpr const char* HERE = "127.0.0.1";

StoreClient::Place place(const StoreServer& server, uint32_t rank, uint32_t size, const char* token = "secret") { return {HERE, server.port(), rank, size, token, ""}; }

/// Why the store does not let a process in; empty where it does.
std::string refusal(const StoreClient::Place& place) {
  try {
    StoreClient client(place);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool says(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

/// A connection of nobody who knows how to talk here.
Socket stranger(const StoreServer& server) {
  Address address = Address::of(HERE, server.port());
  Socket own(socket(address.storage.ss_family, SOCK_STREAM, 0));
  EXPECT(connect(own.get(), address.get(), address.length) == 0);
  return own;
}

/// Joins by hand, and then is silent.
Socket join_silently(const StoreServer& server, uint32_t rank, uint32_t size, uint32_t version = STORE_VERSION, std::string* why = nullptr) {
  Socket own = stranger(server);
  Challenge challenge;
  EXPECT(recv(own.get(), &challenge, sizeof challenge, MSG_WAITALL) == sizeof challenge);
  Hello hello = {};
  std::memcpy(hello.magic, MAGIC, sizeof MAGIC);
  hello.version = version, hello.rank = rank, hello.size = size;
  std::strcpy(hello.address, "10.0.0.7");
  hello.mac = proof_of_hello("secret", challenge.nonce, hello);
  EXPECT(send(own.get(), &hello, sizeof hello, 0) == sizeof hello);
  Welcome welcome;
  EXPECT(recv(own.get(), &welcome, sizeof welcome, MSG_WAITALL) == sizeof welcome);
  if (why) *why = welcome.why;
  else EXPECT(!welcome.refused);
  return own;
}

/// Waits for a loss, so many seconds at most.
int loss(StoreClient& client, double seconds, std::string* how) {
  const uint64_t begun = now_ms();
  while (client.lost(how) < 0 && static_cast<double>(now_ms() - begun) < seconds * 1000) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return client.lost(how);
}

void a_proof_is_hmac_with_sha256() {
  // RFC 4231, cases 2 and 6.
  const auto hex = [](const Mac& mac) {
    std::string text;
    char digits[3];
    for (const uint8_t byte : mac) std::snprintf(digits, sizeof digits, "%02x", byte), text += digits;
    return text;
  };
  EXPECT(hex(hmac("Jefe", "what do ya want for nothing?")) == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT(hex(hmac(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First")) == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

void a_value_reaches_who_asked_before_it_was_there() {
  StoreServer server(HERE, 0, 2, "secret");
  StoreClient one(place(server, 0, 2)), two(place(server, 1, 2));
  std::string got;
  std::thread asking([&] { got = two.get("a key"); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  one.set("a key", std::string("\0 and more", 10));
  asking.join();
  EXPECT(got == std::string("\0 and more", 10));
  EXPECT(one.get("a key") == got && one.address() == HERE);
  one.leave();
  two.leave();
  for (int i = 0; i < 200 && !server.is_over(); i++) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::string how;
  EXPECT(server.is_over() && one.lost(&how) < 0 && two.lost(&how) < 0);
}

void who_does_not_belong_is_refused_and_told_why() {
  StoreServer server(HERE, 0, 2, "secret");
  StoreClient first(place(server, 0, 2));
  EXPECT(says(refusal(place(server, 1, 2, "another")), "another token"));
  EXPECT(says(refusal(place(server, 1, 2, "")), "another token"));
  EXPECT(says(refusal(place(server, 1, 3)), "one of 2 ranks, this is one of 3"));
  EXPECT(says(refusal(place(server, 0, 2)), "there is a rank 0 already"));
  EXPECT(says(refusal(place(server, 2, 2)), "there is no rank 2 of 2"));
  std::string why, how;
  join_silently(server, 1, 2, STORE_VERSION + 1, &why);
  EXPECT(says(why, "another version"));
  StoreClient second(place(server, 1, 2));
  EXPECT(first.lost(&how) < 0 && second.lost(&how) < 0);
}

void a_process_does_not_take_another_program_for_the_store() {
  Address address = Address::of(HERE, 0);
  Socket listening(socket(address.storage.ss_family, SOCK_STREAM, 0));
  EXPECT(!bind(listening.get(), address.get(), address.length) && !listen(listening.get(), 8));
  std::thread web([&] {
    Socket one(accept(listening.get(), nullptr, nullptr));
    const std::string text(200, 'x');
    EXPECT(send(one.get(), text.data(), text.size(), 0) == 200);
  });
  EXPECT(says(refusal({HERE, own_address(listening).port(), 1, 2, "secret", ""}), "is no store of libtitan"));
  web.join();
}

void strangers_hold_nobody_up() {
  StoreServer server(HERE, 0, 2, "secret");
  StoreClient first(place(server, 0, 2));
  std::vector<Socket> strangers;
  for (int i = 0; i < 400; i++) {
    strangers.push_back(stranger(server));
    const std::string text = i % 3 == 0 ? "GET / HTTP/1.1\r\n\r\n" : i % 3 == 1 ? std::string(MAGIC, 8) : "";
    EXPECT(send(strangers.back().get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
  }
  const uint64_t begun = now_ms();
  StoreClient second(place(server, 1, 2));
  second.set("there", "yes");
  EXPECT(first.get("there") == "yes");
  EXPECT(now_ms() - begun < 2000);
  std::string how;
  EXPECT(first.lost(&how) < 0 && second.lost(&how) < 0);
}

void who_ends_hangs_or_gives_up_is_named() {
  std::string how;
  {
    StoreServer server(HERE, 0, 3, "secret");
    StoreClient first(place(server, 0, 3));
    { const Socket ends = join_silently(server, 2, 3); }
    EXPECT(loss(first, 2, &how) == 2 && how == "on 10.0.0.7 has ended without a word");
  }
  {
    StoreServer server(HERE, 0, 3, "secret");
    StoreClient first(place(server, 0, 3));
    const Socket hangs = join_silently(server, 1, 3);
    EXPECT(loss(first, 0.001 * (LOST_MS - 500), &how) < 0);
    EXPECT(loss(first, 0.001 * (LOST_MS + 3000), &how) == 1 && says(how, "on 10.0.0.7 has not been heard of for 4 s"));
  }
  {
    StoreServer server(HERE, 0, 2, "secret");
    StoreClient first(place(server, 0, 2)), second(place(server, 1, 2));
    second.give_up("the disk is full");
    EXPECT(loss(first, 2, &how) == 1 && how == "gave up: the disk is full");
    bool refused = false;
    try {
      first.get("what nobody sets");
    } catch (const Error& error) {
      refused = says(error.what(), "rank 1 gave up: the disk is full");
    }
    EXPECT(refused);
  }
  {
    auto server = std::make_unique<StoreServer>(HERE, 0, 2, "secret");
    StoreClient second(place(*server, 1, 2));
    server.reset();
    EXPECT(loss(second, 2, &how) == 0 && says(how, "on 127.0.0.1 has ended without a word"));
  }
}

void a_store_listens_at_the_address_alone_that_is_asked_for() {
  StoreServer server("127.0.0.2", 0, 1, "secret");
  Address other = Address::of(HERE, server.port());
  Socket own(socket(other.storage.ss_family, SOCK_STREAM, 0));
  EXPECT(connect(own.get(), other.get(), other.length) != 0);
  const auto why = [](const char* host, uint16_t port) -> std::string {
    try {
      StoreServer another(host, port, 1, "secret");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT(says(why("127.0.0.2", server.port()), "where another program does"));
  EXPECT(says(why("192.0.2.1", 29500), "which is no address of its host"));
}

}  // namespace

int main() {
  a_proof_is_hmac_with_sha256();
  a_value_reaches_who_asked_before_it_was_there();
  who_does_not_belong_is_refused_and_told_why();
  a_process_does_not_take_another_program_for_the_store();
  strangers_hold_nobody_up();
  who_ends_hangs_or_gives_up_is_named();
  a_store_listens_at_the_address_alone_that_is_asked_for();
  return finish("store");
}
