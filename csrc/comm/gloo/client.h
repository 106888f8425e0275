// A process at the store of rank 0: it keeps one connection, by which both sides see that the other lives.
#pragma once
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "wire.h"

namespace titan::comm::gloo {

class StoreClient {
 public:
  struct Place {
    std::string host;  // of the store
    uint16_t port;
    uint32_t rank, size;
    std::string token;
    std::string from;  // the address of this host that others are to use; empty: the one by which the store is reached
  };

  /// Joins as soon as the store is there.
  /// @throws Error where the store refuses it, or is none.
  explicit StoreClient(const Place& place);
  ~StoreClient();
  StoreClient(const StoreClient&) = delete;

  /// The address at which others reach this host.
  const std::string& address() const { return address_; }
  void set(const std::string& key, const std::string& value);
  /// Waits until it is set. Throws an Error where a process is lost meanwhile.
  std::string get(const std::string& key);
  /// Tells the others that this process does not go on; waits a second at most until it is said.
  void give_up(const std::string& why);
  /// The first process that was lost and what became of it; -1 where all are there.
  int lost(std::string* how);
  /// Says that this process has done its part: it may end now.
  void leave();

 private:
  void join(const Place& place);
  void serve();
  bool receive_some();
  void lose(int rank, const std::string& how);
  void post(const std::string& frame);
  void drain(int ms);

  Socket socket_;
  std::string store_host_, address_, received_, sending_;
  std::map<std::string, std::string> values_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<int> lost_{-1};
  std::string how_;
  bool left_ = false;
  std::atomic<bool> stop_{false};
  int wake_[2] = {-1, -1};
  std::thread thread_;
};

}  // namespace titan::comm::gloo
