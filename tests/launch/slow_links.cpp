// A switch between network interfaces, whose links take their time: slow_links MICROSECONDS INTERFACE... holds each frame for so long, then hands
// it to whom it is for. It stands in for netem, which few kernels of virtual machines have. Frames stay as large as they come, with their checksums
// still to be made, as the system says in the header in front of each (PACKET_VNET_HDR). As root; it ends with the process that started it.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace {

constexpr size_t HEADER = 10;                       // virtio_net_hdr
constexpr size_t MOST_BYTES = HEADER + 18 + 65536;  // of a frame

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

uint64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

int open_interface(const char* name) {
  const int number = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL)), on = 1, room = 64 << 20;
  if (number < 0) fail("socket");
  sockaddr_ll address{};
  address.sll_family = AF_PACKET, address.sll_protocol = htons(ETH_P_ALL), address.sll_ifindex = static_cast<int>(if_nametoindex(name));
  if (!address.sll_ifindex || bind(number, reinterpret_cast<sockaddr*>(&address), sizeof address)) fail(name);
  packet_mreq all{};
  all.mr_ifindex = address.sll_ifindex, all.mr_type = PACKET_MR_PROMISC;
  if (setsockopt(number, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all)) fail("PACKET_ADD_MEMBERSHIP");
  if (setsockopt(number, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on)) fail("PACKET_IGNORE_OUTGOING");
  if (setsockopt(number, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on)) fail("PACKET_VNET_HDR");
  for (const int option : {SO_RCVBUFFORCE, SO_SNDBUFFORCE}) setsockopt(number, SOL_SOCKET, option, &room, sizeof room);
  return number;
}

struct Frame {
  uint64_t due_ns;
  size_t from;
  std::string bytes;
};

}  // namespace

int main(int count, char** words) {
  if (count < 4) return fprintf(stderr, "slow_links MICROSECONDS INTERFACE INTERFACE...\n"), 1;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_TIMERSLACK, 1000ul);
  const uint64_t delay_ns = strtoull(words[1], nullptr, 10) * 1000;
  std::vector<pollfd> links;
  for (int i = 2; i < count; i++) links.push_back({open_interface(words[i]), POLLIN, 0});
  std::map<std::string, size_t> link_of;  // by address
  std::deque<Frame> under_way;
  std::vector<char> buffer(MOST_BYTES);
  puts("ready");
  fflush(stdout);
  for (;;) {
    const uint64_t now = now_ns(), wait = under_way.empty() ? 1'000'000'000 : under_way.front().due_ns > now ? under_way.front().due_ns - now : 0;
    const timespec most = {static_cast<time_t>(wait / 1'000'000'000), static_cast<long>(wait % 1'000'000'000)};
    ppoll(links.data(), links.size(), &most, nullptr);
    // A link that is down says so once, and has nothing.
    for (size_t link = 0; link < links.size(); link++)
      for (ssize_t size; (size = recv(links[link].fd, buffer.data(), buffer.size(), 0)) >= static_cast<ssize_t>(HEADER + ETH_HLEN);) {
        Frame frame{now_ns() + delay_ns, link, std::string(buffer.data(), static_cast<size_t>(size))};
        link_of[frame.bytes.substr(HEADER + ETH_ALEN, ETH_ALEN)] = link;
        under_way.push_back(std::move(frame));
      }
    for (; !under_way.empty() && under_way.front().due_ns <= now_ns(); under_way.pop_front()) {
      const auto& [due, from, bytes] = under_way.front();
      const auto known = link_of.find(bytes.substr(HEADER, ETH_ALEN));
      for (size_t link = 0; link < links.size(); link++)
        if (link != from && (known == link_of.end() || known->second == link)) (void)!send(links[link].fd, bytes.data(), bytes.size(), 0);
    }
  }
}
