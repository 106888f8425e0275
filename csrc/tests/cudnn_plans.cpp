// Which attention cuDNN itself takes on a GPU that is not here. Of each line "sequences tokens heads key_heads head_size scale backward bytes" of its input it
// tells the workspace of cuDNN's plan, which must not need more than so many bytes, or why there is no plan; the exit status is then 1.
//   cudnn_plans PROPERTIES.json 90
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>

#include "../cuda/cudnn.h"
#include "../failure.h"

using namespace titan;
using namespace titan::cuda::cudnn;

int main(int, char** argv) {
  std::ifstream file(argv[1]);
  const std::string properties(std::istreambuf_iterator<char>(file), {});
  int status = 0;
  Attention a = {};
  uint64_t bytes = 0;
  while (std::cin >> a.B >> a.T >> a.H >> a.G >> a.K >> a.scale >> a.backward >> bytes) {
    a.S = a.T, a.mask = Mask::causal;
    a.q = a.o = a.grad = a.dq = {a.T * a.H * a.K, a.H * a.K, a.K}, a.k = a.v = a.dk = a.dv = {a.T * a.G * a.K, a.G * a.K, a.K};
    try {
      std::printf("%llu\n", static_cast<unsigned long long>(workspace_bytes_on(properties, std::atoi(argv[2]), a, bytes)));
    } catch (...) {
      std::printf("%s\n", Failure::caught().what());
      status = 1;
    }
  }
  return status;
}
