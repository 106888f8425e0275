// The C interface of libtitan. ffi/symbols.ts is generated from this file by tools/codegen.ts.
//
// - Every function returns a titan_status and, when that is not TITAN_STATUS_OK, fills the caller's titan_error (which may be null).
// - Devices and programs are handles: numbers that are never used twice. A wrong or stale one is an error, never a crash.
// - Calls may come from any thread. Nothing is kept per calling thread; numeric work happens on the device's own executor thread,
//   in the order in which it was asked for. Only state is copied in and out by the calling thread.
// - TITAN_SLOW marks calls that may take longer than about 50 us: a caller with an event loop makes them from another thread.
//   Buffers passed to a call must stay where they are until it returns.
#ifndef TITAN_H
#define TITAN_H

#include <stdint.h>

#define TITAN_API __attribute__((visibility("default")))
#define TITAN_SLOW TITAN_API

#ifdef __cplusplus
extern "C" {
#endif

/** Changes whenever a function, a struct or the program format changes. */
#define TITAN_ABI_VERSION 10

typedef enum titan_status {
  TITAN_STATUS_OK = 0,
  TITAN_STATUS_INVALID_ARGUMENT = 1, /* a null pointer, an unknown kind, a range outside its buffer */
  TITAN_STATUS_INVALID_HANDLE = 2,   /* closed, destroyed, or of another kind */
  TITAN_STATUS_INVALID_PROGRAM = 3,  /* malformed, or not for this device */
  TITAN_STATUS_OUT_OF_MEMORY = 4,
  TITAN_STATUS_NOT_FINITE = 5,       /* TITAN_FLAG_CHECK_FINITE found an infinity or a NaN */
  TITAN_STATUS_INTERNAL = 6,         /* a defect of libtitan */
  TITAN_STATUS_COMMUNICATION = 7     /* another rank did not come in time, has ended, or does something else */
} titan_status;

typedef enum titan_device_kind {
  TITAN_DEVICE_CPU = 0,
  TITAN_DEVICE_CUDA = 1 /* a GPU, through the module libtitan_cuda, which lies beside this library or where the environment variable TITAN_CUDA says */
} titan_device_kind;

/** Flags of an action. FIRST makes `accumulate` overwrite; CHECK_FINITE scans the outputs of every instruction; without LAST, what ranks have
 * added up stays as it is (`all_reduce` with `last`). */
typedef enum titan_flag {
  TITAN_FLAG_FIRST = 1,
  TITAN_FLAG_CHECK_FINITE = 2,
  TITAN_FLAG_LAST = 4
} titan_flag;

/** What titan_device_measure measures, each in billions a second. */
typedef enum titan_measure {
  TITAN_MEASURE_PRODUCT = 0,  /* FLOP of an f32 matrix product of n x n x n */
  TITAN_MEASURE_BANDWIDTH = 1, /* bytes that y += x reads and writes, on two arrays of n f32: take n beyond all caches */
  TITAN_MEASURE_PRODUCT_BF16 = 2 /* FLOP of such a product of bf16 operands with an f32 result */
} titan_measure;

/** Why a call failed. Texts are UTF-8 and end with a zero byte; section and instruction are -1 where they do not apply. */
typedef struct titan_error {
  int32_t status;
  int32_t section;
  int64_t instruction;
  char message[1024];
  char kernel[64];
  char scope[256];
} titan_error;

/** What a device is to take of its machine. */
typedef struct titan_device_options {
  uint32_t threads;   /* 0: OMP_NUM_THREADS, or one for each core that the process may use, as far as its CPU quota keeps them busy */
  uint32_t host_size; /* processes of the run on this host, which share it (0 and 1: it is alone) */
  uint32_t placed;    /* may whoever started them have given each processors of its own? 1: then those are not divided once more */
} titan_device_options;

typedef struct titan_device_info {
  uint32_t kind;
  uint32_t threads;
  uint32_t vector_bits; /* of the vectors that the level uses */
  uint32_t level_is_forced; /* by the environment variable TITAN_CPU */
  char threads_text[128]; /* why so many threads and where they run, if there is something to say */
  char level[32]; /* of the processor, that the kernels were compiled for: portable, avx2, ... */
  char processor[128];
  char product[256]; /* who multiplies matrices of f32 and f64: libtitan itself, or a BLAS with its version. TITAN_PRODUCT=own|blas forces it */
} titan_device_info;

/** Memory of the process, by the machine and the control groups (cgroups) that limit it. */
typedef struct titan_process_memory {
  uint64_t total_bytes;     /* that the limit which leaves least allows */
  uint64_t available_bytes; /* of that, the process's part of what nobody uses, and what it has already */
  uint64_t own_bytes;       /* what the process has already: it can be used for something else only if the process gives it back */
  char file[512];           /* that sets the limit, empty where it is the machine's memory */
} titan_process_memory;

typedef struct titan_memory {
  uint64_t arena_bytes;
  uint64_t input_bytes;  /* that one action may read, counted from its input_base */
  uint64_t output_bytes; /* that one action may write, counted from its output_base */
  uint64_t table_bytes;  /* tensors, instructions, attributes, and what kernels prepared of them, in host memory */
  uint64_t huge_bytes;   /* of the arena, that the system has put into huge pages */
} titan_memory;

/** Run one section. The offsets of its input and output tensors count from the bases, which are multiples of 8. */
typedef struct titan_action {
  uint32_t section;
  uint32_t slot; /* below the number of slots of the program: where it has what it keeps of its microbatch */
  uint32_t flags;
  uint32_t source; /* another of them, which some sections read: what one microbatch hands from stage to stage */
  uint64_t input_base;
  uint64_t output_base;
} titan_action;

/** Bytes of a part of a file that belong together in a program's arena. */
typedef struct titan_stretch {
  uint64_t from; /* first byte, counted from the part's */
  uint64_t to;   /* first byte in the arena */
  uint64_t num_bytes;
} titan_stretch;

/** When an instruction ran, by the machine's steady clock. */
typedef struct titan_profile_record {
  uint64_t begin_ns;
  uint64_t end_ns;
  uint64_t instruction; /* of the program */
  uint32_t action;      /* of the run */
  uint32_t stream;      /* 0 kernels, 1 collectives */
} titan_profile_record;

/** How a rank joins the others. */
typedef struct titan_comm_options {
  uint64_t start_timeout_ms; /* who waits for a rank gives up after this while opening, loading and in the first run of a program */
  uint64_t timeout_ms;       /* and later */
  uint64_t num_records;      /* of collectives, that the flight recorder keeps (the same on all ranks) */
  uint64_t latency_ns;       /* of a message, if a link is simulated */
  double bytes_per_second;   /* of that link, over which no collective could have ended sooner (0: none is simulated) */
} titan_comm_options;

/** What a rank has done in collectives of one kind. */
typedef struct titan_comm_traffic {
  uint64_t collectives;
  uint64_t tensors;
  double sent_bytes; /* as in rings of n ranks: (n - 1) / n of a whole, twice that in an all_reduce, and all of what is shifted or sent to one rank */
} titan_comm_traffic;

typedef struct titan_comm_info {
  uint32_t rank;
  uint32_t size;      /* number of ranks */
  uint32_t host_rank; /* among the ranks of its host */
  uint32_t host_size; /* ranks of its host */
  char exchange[256]; /* how ranks exchange: shared memory or messages, and why */
  char version[256];  /* of what the module was made with */
  char processors[256]; /* on which the device computes, and why */
} titan_comm_info;

/** TITAN_ABI_VERSION of the library. */
TITAN_API uint32_t titan_abi_version(void);

/** Version of the library as text, cut to size - 1 bytes. */
TITAN_API int32_t titan_version(char *text, uint64_t size);

/** Opens a device and starts its executor. A CPU runs the kernels of the best level that it supports, or of a lower one that the environment
 * variable TITAN_CPU names. Where a process is alone and has a thread for each of its cores, and these are not all of the host's or are on several
 * sockets, each thread is bound to one, unless OMP_PROC_BIND says otherwise. */
TITAN_API int32_t titan_device_open(uint32_t kind, uint32_t ordinal, const titan_device_options *options, uint64_t *device, titan_error *error);

/** Makes the handle invalid; the device itself ends with its last program. */
TITAN_API int32_t titan_device_close(uint64_t device, titan_error *error);

/** Describes the device. */
TITAN_API int32_t titan_device_describe(uint64_t device, titan_device_info *info, titan_error *error);

/** Memory that there is for this process now. Of what ranks of a host have together each gets the same part. */
TITAN_API int32_t titan_device_memory(uint64_t device, titan_process_memory *memory, titan_error *error);

/** What the device can do (a titan_measure): the best of a few, on so many threads (0: all of the device). */
TITAN_SLOW int32_t titan_device_measure(uint64_t device, uint32_t measure, uint64_t n, uint32_t threads, double *giga_per_second, titan_error *error);

/** Checks a binary program, allocates and touches its arena (all zeros). The bytes are not needed afterwards. */
TITAN_SLOW int32_t titan_program_create(uint64_t device, const uint8_t *bytes, uint64_t num_bytes, uint64_t *program, titan_error *error);

/** Runs the actions in order, each stream for itself as far as the program has it wait for others, and returns when all has ended. Input and
 * output are host buffers, multiples of 8 in address, which do not overlap. */
TITAN_SLOW int32_t titan_program_run(uint64_t program, const titan_action *actions, uint64_t num_actions, const uint8_t *input, uint64_t input_bytes,
                                     uint8_t *output, uint64_t output_bytes, titan_error *error);

/** Has the next run write a record per instruction, in the order of the program. It is refused where they are more than capacity;
    the memory must stay until it has ended, or until another call replaces it (null: the next run is not recorded either). */
TITAN_SLOW int32_t titan_program_profile(uint64_t program, titan_profile_record *records, uint64_t capacity, titan_error *error);

/** Makes the handle invalid; memory is returned once a run in progress has ended. */
TITAN_API int32_t titan_program_destroy(uint64_t program, titan_error *error);

/** What the program holds. */
TITAN_API int32_t titan_program_memory(uint64_t program, titan_memory *memory, titan_error *error);

/** Copies num_bytes of the program's arena, from an offset on, into bytes: on the calling thread, also while a run is under way. It waits for an action
    that writes there, and an action that is to write there waits for it. */
TITAN_SLOW int32_t titan_buffer_read(uint64_t program, uint64_t offset, uint8_t *bytes, uint64_t num_bytes, titan_error *error);

/** Copies bytes into the program's arena: on the calling thread, between two actions of a run that is under way. */
TITAN_SLOW int32_t titan_buffer_write(uint64_t program, uint64_t offset, const uint8_t *bytes, uint64_t num_bytes, titan_error *error);

/** Opens a file to be read, from front to back where that is to be quick. */
TITAN_SLOW int32_t titan_file_open(const char *path, uint64_t *file, titan_error *error);

/** Reads one part, or up to four at a time, which hashes them quicker: num_bytes of each file from its offset on, one behind the other into bytes, and
    into num_read how many there were. Where hashes is not null, it gets the SHA-256, 32 bytes, of each; that of a part which is shorter means nothing. */
TITAN_SLOW int32_t titan_file_read(const uint64_t *files, const uint64_t *offsets, uint32_t num_parts, uint8_t *bytes, uint64_t num_bytes,
                                   uint8_t *hashes, uint64_t *num_read, titan_error *error);

/** Reads parts as titan_file_read does, straight into the program's arena: of each part the stretches that it has, in the order of the file, behind
    those of the part before; num_stretches says how many. On the calling thread, between two actions of a run that is under way. The bytes are there
    before their hash is known. */
TITAN_SLOW int32_t titan_program_load(uint64_t program, const uint64_t *files, const uint64_t *offsets, uint32_t num_parts, uint64_t num_bytes,
                                      const titan_stretch *stretches, const uint64_t *num_stretches, uint8_t *hashes, uint64_t *num_read,
                                      titan_error *error);

/** Closes a file, once the calls that read it have ended. */
TITAN_API int32_t titan_file_close(uint64_t file, titan_error *error);

/** Joins the other ranks, with which mpirun or srun started this one, through the module libtitan_<name>, which lies beside this library. The
    device's programs may then have collectives, and all ranks load them in the same order. When one gives up waiting, so do the others. Ranks of
    a host that may use the same processors share them out, if there are enough, and bind their device's threads. Once in a process. */
TITAN_SLOW int32_t titan_comm_open(uint64_t device, const char *name, const titan_comm_options *options, uint64_t *comm, titan_error *error);

/** Describes the communicator. */
TITAN_API int32_t titan_comm_describe(uint64_t comm, titan_comm_info *info, titan_error *error);

/** Fills all with num_bytes from each rank, in their order; of none it is a barrier. Not while a program of the device runs. */
TITAN_SLOW int32_t titan_comm_gather(uint64_t comm, const uint8_t *mine, uint64_t num_bytes, uint8_t *all, titan_error *error);

/** The last collectives of each rank of this host as text, cut to size - 1 bytes: what each does or has done, where, and how long ago. */
TITAN_API int32_t titan_comm_record(uint64_t comm, char *text, uint64_t size, titan_error *error);

/** What this rank has done so far in collectives of a kind: its number among the COLLECTIVE lines of kernels.def. */
TITAN_API int32_t titan_comm_count(uint64_t comm, uint32_t collective, titan_comm_traffic *traffic, titan_error *error);

/** Tells the other ranks that this one does not go on, and why: who waits for it, now or later, fails with that. It is for what goes wrong outside
    of libtitan; ranks tell each other by themselves of what fails inside. There is no closing behind it. */
TITAN_API int32_t titan_comm_give_up(uint64_t comm, const char *why, titan_error *error);

/** Ends the processes of all ranks at once, this one too. */
TITAN_API int32_t titan_comm_abort(uint64_t comm, int32_t exit_code, titan_error *error);

/** Leaves the other ranks, who do so too, and makes the handle invalid. A process that ends without it counts as failed. */
TITAN_SLOW int32_t titan_comm_close(uint64_t comm, titan_error *error);

#ifdef __cplusplus
}
#endif

#endif
