#include "failure.h"

#include <cstdio>
#include <new>

namespace titan {

Failure Failure::caught(const char* kernel, const char* scope) noexcept {
  char where[sizeof titan_error::kernel + sizeof titan_error::scope + 8] = "", message[sizeof titan_error::message];
  if (kernel) std::snprintf(where, sizeof where, *scope ? " in %s of %s" : " in %s", kernel, scope);
  try {
    throw;
  } catch (const Failure& failure) {
    return failure;
  } catch (const std::bad_alloc&) {
    std::snprintf(message, sizeof message, "host memory ran out%s; expected: some to be left beside the program's arena; fix: a smaller batch or model, or end what else uses memory", where);
    return Failure(TITAN_STATUS_OUT_OF_MEMORY, message);
  } catch (const std::exception& exception) {
    std::snprintf(message, sizeof message, "an exception%s: %s", where, exception.what());
  } catch (...) {
    std::snprintf(message, sizeof message, "an unknown exception%s", where);
  }
  return Failure(TITAN_STATUS_INTERNAL, message);
}

}  // namespace titan
