// What tests and the module of mirror_module.cpp tell each other.
#pragma once
#include "../comm/module.h"

struct titan_mirror {
  int32_t (*run)(const titan_comm_call* call, const titan_comm_wait* wait);  // instead of a collective by messages
  char told[TITAN_COMM_TEXT];                                                // why this rank has given up
  char heard[TITAN_COMM_TEXT];                                               // why the other has; empty where it has not
};
