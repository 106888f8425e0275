// What runs a call in place of its kernel: a library, called with arguments that were chosen when the program was loaded. It lies in memory of the host,
// one for each instruction that has one.
#pragma once
#include <memory>
#include <vector>

#include "../backend.h"

namespace titan::cuda {

class Plan {
 public:
  virtual ~Plan() = default;
  /// Puts the call's work into its stream. It is the call that the plan was made for, with flags and operands' addresses of this action: these are aligned as
  /// those were. May be captured; allocates nothing. Throws a Failure.
  virtual void run(const Call& call) const = 0;
};

/// By instruction of a program: null where its kernel runs.
using Plans = std::vector<std::unique_ptr<Plan>>;

}  // namespace titan::cuda
