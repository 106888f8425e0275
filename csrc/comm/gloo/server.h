// The store that rank 0 serves: where processes find each other, and which watches that all of them live. One thread, which nothing that a stranger
// sends can hold up: who has not proved within seconds that it knows the token is hung up on.
#pragma once
#include <atomic>
#include <list>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "wire.h"

namespace titan::comm::gloo {

class StoreServer {
 public:
  /// Listens at an address of this host, port 0 being any that is free.
  /// @throws Error where it cannot.
  StoreServer(const std::string& host, uint16_t port, uint32_t size, std::string token);
  ~StoreServer();
  StoreServer(const StoreServer&) = delete;
  uint16_t port() const { return port_; }
  /// Have all processes left, or is one lost?
  bool is_over() const { return over_; }

 private:
  static constexpr int NOBODY = -1;
  struct Peer {
    Socket socket;
    Nonce nonce = {};
    int rank = NOBODY;       // of a process, once it has proved that it is one
    bool ends = false;       // when all is written
    uint64_t heard = 0;      // last; of a stranger: when it came
    std::string in, out, address;
  };

  void serve();
  void accept_all();
  /// Reads and writes what there is. False where the connection is over.
  bool work(Peer& peer, short events);
  bool take(Peer& peer);
  void greet(Peer& peer);
  void answer(Peer& peer, Frame kind, const std::string& body);
  void lose(const Peer& peer, const std::string& how);

  const uint32_t size_;
  const std::string token_;
  Socket listening_;
  uint16_t port_ = 0;
  std::atomic<bool> stop_{false}, over_{false};
  std::list<Peer> peers_;
  std::vector<char> joined_, left_;  // by rank
  std::map<std::string, std::string> values_;
  std::vector<std::pair<int, std::string>> asking_;  // ranks that wait for keys
  std::string lost_;                                 // what is told of the first process that is lost
  std::thread thread_;
};

}  // namespace titan::comm::gloo
