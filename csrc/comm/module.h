// What libtitan asks of a communication module: a library of its own (libtitan_mpi) that it opens on demand, since a single process needs none
// and every MPI has its own binary interface; or libtitan_gloo, which needs no MPI. A module gets processes together and carries messages between them. Ranks of one host exchange
// through memory that all of them see (world.h): then the module only brings them together.
//
// - libtitan makes all calls but `abort` from one thread.
// - A function returns 0, or a titan_comm_result and an error text of at most TITAN_COMM_TEXT bytes.
// - A group is an ordered list of ranks of the world; null is the world itself.
#pragma once
#include <stdint.h>

#define TITAN_COMM_ABI 7
#define TITAN_COMM_TEXT 512
#define TITAN_COMM_LANES 4

#ifdef __cplusplus
extern "C" {
#endif

typedef enum titan_comm_result {
  TITAN_COMM_OK = 0,
  TITAN_COMM_GAVE_UP = 1, /* `go_on` said so */
  TITAN_COMM_FAILED = 2   /* see the error text */
} titan_comm_result;

/** titan_comm_all_gather and so on: the COLLECTIVE lines of kernels.def, in their order. */
typedef enum titan_comm_kind {
#define KERNEL(name, operands, attributes, dtypes)
#define MAP(name, arity)
#define COLLECTIVE(name, operands, attributes, dtypes) titan_comm_##name,
#include "../kernels.def"
#undef KERNEL
#undef MAP
  titan_comm_num_kinds
} titan_comm_kind;

/** A dense tensor of a collective. The whole is `outer` rows, each of one piece of `chunk` elements for every rank, in the order of the group;
 * a rank's part is `outer` rows of one piece. all_gather makes wholes of parts, reduce_scatter parts of wholes. In an all_reduce `in` and `out`
 * have `chunk` elements, outer is 1, and they may be the same memory. In a ring_shift `out` takes the `in` of the member before, the last being
 * before the first: `outer` rows of `chunk` elements, each `in_step` or `out_step` elements behind the one before. In an all_to_all `in` and `out`
 * are both wholes, and each rank gives every other its piece of `in`, outer * chunk elements: `in_run` of them lie together in `in`, and `out_run`
 * in `out`; `chunk` is the smaller of these. In an exchange a tensor of `chunk` elements goes `from` one member `to` another: all members have
 * the same list, `in` is there for who sends it, `out` for who receives it, and both are null for the rest. */
typedef struct titan_comm_tensor {
  const void *in;
  void *out;
  uint64_t outer, chunk;
  uint64_t in_step, out_step; /* of a ring_shift */
  uint64_t in_run, out_run;   /* of an all_to_all */
  uint32_t from, to;          /* of an exchange */
} titan_comm_tensor;

/** A collective over several tensors of one dtype, numbered as in backend.h; those of an exchange are bytes. `by` is 0 for sums, added in the order of the ranks, and 1 for maxima. */
typedef struct titan_comm_call {
  uint32_t kind, dtype, by, num_tensors;
  const titan_comm_tensor *tensors;
} titan_comm_call;

/** Messages in stages, several of which are under way at once, at most TITAN_COMM_LANES. */
typedef struct titan_comm_stages {
  uint64_t count;
  /** Lists what a stage sends or receives, and says how much that is: `chunk` bytes of `in` that go `to` a member, or of `out` that come `from` one.
   * Both ends have the same messages in the same order. The list stays until the next call. */
  uint32_t (*begin)(void *context, uint64_t stage, const titan_comm_tensor **tensors);
  /** All of a stage's messages are done, and those of all stages before it. */
  void (*end)(void *context, uint64_t stage);
  void *context;
} titan_comm_stages;

/** Whoever waits asks this again and again: 0 means to give up. For a module that does not sleep while it waits, it does. */
typedef struct titan_comm_wait {
  int32_t (*go_on)(void *context);
  void *context;
} titan_comm_wait;

typedef struct titan_comm_place {
  int32_t rank, size;
  int32_t host; /* the lowest rank on this rank's host */
  char version[TITAN_COMM_TEXT];
} titan_comm_place;

typedef struct titan_comm_module {
  uint32_t abi;    /* TITAN_COMM_ABI */
  int32_t sleeps;  /* Does it sleep while it waits, and ask every few milliseconds? From a thread of its own, if it likes, one at a time. */
  int32_t watches; /* Does it notice by itself when another process ends or halts? `given_up` tells that too. */
  /** Joins the other processes; the only call without a time-out. */
  int32_t (*open)(titan_comm_place *place, char *error);
  /** Makes a group; all its ranks do, in the same order where they share several. */
  int32_t (*group)(const int32_t *ranks, int32_t size, void **group, char *error);
  /** Every rank's `bytes` of host memory, one after another, for all of them. However it ends, it is done with the memory. */
  int32_t (*gather)(void *group, const void *mine, void *all, uint64_t bytes, const titan_comm_wait *wait, char *error);
  /** A collective by messages. Unless it ends well, some may be on their way for ever: then the tensors' memory has to stay where it is. */
  int32_t (*run)(void *group, const titan_comm_call *call, const titan_comm_wait *wait, char *error);
  /** The messages between ranks of different hosts, where those of one host exchange through memory. Memory has to stay, as for `run`. */
  int32_t (*run_stages)(void *group, const titan_comm_stages *stages, const titan_comm_wait *wait, char *error);
  /** Tells the others, none of whom need be there any more, that this rank gives up, and why. Takes a second at most. */
  void (*give_up)(const char *why);
  /** The first of the others who told that, or was lost: its rank, and what became of it in TITAN_COMM_TEXT bytes, such as "gave up: the disk is
   * full"; -1 where all are there. */
  int32_t (*given_up)(char *why);
  /** Leaves the others, who do so too. */
  int32_t (*close)(char *error);
  /** Ends all processes at once, this one too. */
  void (*abort)(int32_t exit_code);
} titan_comm_module;

/** The one function of a module's library. */
typedef const titan_comm_module *titan_comm_module_function(void);
#define TITAN_COMM_MODULE titan_comm_module_of_this_library

#ifdef __cplusplus
}
#endif
