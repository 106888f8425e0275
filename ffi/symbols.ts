// Generated from csrc/titan.h by tools/codegen.ts. Do not edit.
/** The C interface of libtitan as Deno sees it: functions, structs and constants. Offsets and sizes are bytes.
 * @module */

/** The library must answer this to `titan_abi_version`. */
export const ABI_VERSION = 10;

/** `titan_status` of titan.h. */
export const Status = {
  OK: 0,
  /** a null pointer, an unknown kind, a range outside its buffer */
  INVALID_ARGUMENT: 1,
  /** closed, destroyed, or of another kind */
  INVALID_HANDLE: 2,
  /** malformed, or not for this device */
  INVALID_PROGRAM: 3,
  OUT_OF_MEMORY: 4,
  /** TITAN_FLAG_CHECK_FINITE found an infinity or a NaN */
  NOT_FINITE: 5,
  /** a defect of libtitan */
  INTERNAL: 6,
  /** another rank did not come in time, has ended, or does something else */
  COMMUNICATION: 7,
} as const;

/** `titan_device_kind` of titan.h. */
export const DeviceKind = {
  CPU: 0,
  /** a GPU, through the module libtitan_cuda, which lies beside this library or where the environment variable TITAN_CUDA says */
  CUDA: 1,
} as const;

/** `titan_flag` of titan.h. */
export const Flag = {
  FIRST: 1,
  CHECK_FINITE: 2,
  LAST: 4,
} as const;

/** `titan_measure` of titan.h. */
export const Measure = {
  /** FLOP of an f32 matrix product of n x n x n */
  PRODUCT: 0,
  /** bytes that y += x reads and writes, on two arrays of n f32: take n beyond all caches */
  BANDWIDTH: 1,
  /** FLOP of such a product of bf16 operands with an f32 result */
  PRODUCT_BF16: 2,
} as const;

/** What ranks do together: the number of each kind in `titan_comm_count`, as in kernels.def. */
export const Collective = {
  all_gather: 0,
  reduce_scatter: 1,
  all_reduce: 2,
  ring_shift: 3,
  all_to_all: 4,
  exchange: 5,
} as const;

/** Where each field of a struct is; a text has `length` bytes and ends at its first zero. */
export const structs = {
  titan_error: {
    bytes: 1360,
    fields: {
      status: { offset: 0, type: "i32", length: 1 },
      section: { offset: 4, type: "i32", length: 1 },
      instruction: { offset: 8, type: "i64", length: 1 },
      message: { offset: 16, type: "text", length: 1024 },
      kernel: { offset: 1040, type: "text", length: 64 },
      scope: { offset: 1104, type: "text", length: 256 },
    },
  },
  titan_device_options: {
    bytes: 12,
    fields: {
      threads: { offset: 0, type: "u32", length: 1 },
      host_size: { offset: 4, type: "u32", length: 1 },
      placed: { offset: 8, type: "u32", length: 1 },
    },
  },
  titan_device_info: {
    bytes: 560,
    fields: {
      kind: { offset: 0, type: "u32", length: 1 },
      threads: { offset: 4, type: "u32", length: 1 },
      vector_bits: { offset: 8, type: "u32", length: 1 },
      level_is_forced: { offset: 12, type: "u32", length: 1 },
      threads_text: { offset: 16, type: "text", length: 128 },
      level: { offset: 144, type: "text", length: 32 },
      processor: { offset: 176, type: "text", length: 128 },
      product: { offset: 304, type: "text", length: 256 },
    },
  },
  titan_process_memory: {
    bytes: 536,
    fields: {
      total_bytes: { offset: 0, type: "u64", length: 1 },
      available_bytes: { offset: 8, type: "u64", length: 1 },
      own_bytes: { offset: 16, type: "u64", length: 1 },
      file: { offset: 24, type: "text", length: 512 },
    },
  },
  titan_memory: {
    bytes: 40,
    fields: {
      arena_bytes: { offset: 0, type: "u64", length: 1 },
      input_bytes: { offset: 8, type: "u64", length: 1 },
      output_bytes: { offset: 16, type: "u64", length: 1 },
      table_bytes: { offset: 24, type: "u64", length: 1 },
      huge_bytes: { offset: 32, type: "u64", length: 1 },
    },
  },
  titan_action: {
    bytes: 32,
    fields: {
      section: { offset: 0, type: "u32", length: 1 },
      slot: { offset: 4, type: "u32", length: 1 },
      flags: { offset: 8, type: "u32", length: 1 },
      source: { offset: 12, type: "u32", length: 1 },
      input_base: { offset: 16, type: "u64", length: 1 },
      output_base: { offset: 24, type: "u64", length: 1 },
    },
  },
  titan_stretch: {
    bytes: 24,
    fields: {
      from: { offset: 0, type: "u64", length: 1 },
      to: { offset: 8, type: "u64", length: 1 },
      num_bytes: { offset: 16, type: "u64", length: 1 },
    },
  },
  titan_profile_record: {
    bytes: 32,
    fields: {
      begin_ns: { offset: 0, type: "u64", length: 1 },
      end_ns: { offset: 8, type: "u64", length: 1 },
      instruction: { offset: 16, type: "u64", length: 1 },
      action: { offset: 24, type: "u32", length: 1 },
      stream: { offset: 28, type: "u32", length: 1 },
    },
  },
  titan_comm_options: {
    bytes: 40,
    fields: {
      start_timeout_ms: { offset: 0, type: "u64", length: 1 },
      timeout_ms: { offset: 8, type: "u64", length: 1 },
      num_records: { offset: 16, type: "u64", length: 1 },
      latency_ns: { offset: 24, type: "u64", length: 1 },
      bytes_per_second: { offset: 32, type: "f64", length: 1 },
    },
  },
  titan_comm_traffic: {
    bytes: 24,
    fields: {
      collectives: { offset: 0, type: "u64", length: 1 },
      tensors: { offset: 8, type: "u64", length: 1 },
      sent_bytes: { offset: 16, type: "f64", length: 1 },
    },
  },
  titan_comm_info: {
    bytes: 784,
    fields: {
      rank: { offset: 0, type: "u32", length: 1 },
      size: { offset: 4, type: "u32", length: 1 },
      host_rank: { offset: 8, type: "u32", length: 1 },
      host_size: { offset: 12, type: "u32", length: 1 },
      exchange: { offset: 16, type: "text", length: 256 },
      version: { offset: 272, type: "text", length: 256 },
      processors: { offset: 528, type: "text", length: 256 },
    },
  },
} as const;

/** The functions, for `Deno.dlopen`. */
export const symbols = {
  /** TITAN_ABI_VERSION of the library. */
  titan_abi_version: {
    parameters: [],
    result: "u32",
  },
  /** Version of the library as text, cut to size - 1 bytes. */
  titan_version: {
    parameters: [
      "buffer", // char *text
      "u64", // uint64_t size
    ],
    result: "i32",
  },
  /** Opens a device and starts its executor. A CPU runs the kernels of the best level that it supports, or of a lower one that the environment * variable TITAN_CPU names. Where a process is alone and has a thread for each of its cores, and these are not all of the host's or are on several * sockets, each thread is bound to one, unless OMP_PROC_BIND says otherwise. */
  titan_device_open: {
    parameters: [
      "u32", // uint32_t kind
      "u32", // uint32_t ordinal
      "buffer", // const titan_device_options *options
      "buffer", // uint64_t *device
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** Makes the handle invalid; the device itself ends with its last program. */
  titan_device_close: {
    parameters: [
      "u64", // uint64_t device
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** Describes the device. */
  titan_device_describe: {
    parameters: [
      "u64", // uint64_t device
      "buffer", // titan_device_info *info
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** Memory that there is for this process now. Of what ranks of a host have together each gets the same part. */
  titan_device_memory: {
    parameters: [
      "u64", // uint64_t device
      "buffer", // titan_process_memory *memory
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** What the device can do (a titan_measure): the best of a few, on so many threads (0: all of the device). */
  titan_device_measure: {
    parameters: [
      "u64", // uint64_t device
      "u32", // uint32_t measure
      "u64", // uint64_t n
      "u32", // uint32_t threads
      "buffer", // double *giga_per_second
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** Checks a binary program, allocates and touches its arena (all zeros). The bytes are not needed afterwards. */
  titan_program_create: {
    parameters: [
      "u64", // uint64_t device
      "buffer", // const uint8_t *bytes
      "u64", // uint64_t num_bytes
      "buffer", // uint64_t *program
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** Runs the actions in order, each stream for itself as far as the program has it wait for others, and returns when all has ended. Input and * output are host buffers, multiples of 8 in address, which do not overlap. */
  titan_program_run: {
    parameters: [
      "u64", // uint64_t program
      "buffer", // const titan_action *actions
      "u64", // uint64_t num_actions
      "buffer", // const uint8_t *input
      "u64", // uint64_t input_bytes
      "buffer", // uint8_t *output
      "u64", // uint64_t output_bytes
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** Has the next run write a record per instruction, in the order of the program. It is refused where they are more than capacity; the memory must stay until it has ended, or until another call replaces it (null: the next run is not recorded either). */
  titan_program_profile: {
    parameters: [
      "u64", // uint64_t program
      "buffer", // titan_profile_record *records
      "u64", // uint64_t capacity
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** Makes the handle invalid; memory is returned once a run in progress has ended. */
  titan_program_destroy: {
    parameters: [
      "u64", // uint64_t program
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** What the program holds. */
  titan_program_memory: {
    parameters: [
      "u64", // uint64_t program
      "buffer", // titan_memory *memory
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** Copies num_bytes of the program's arena, from an offset on, into bytes: on the calling thread, also while a run is under way. It waits for an action that writes there, and an action that is to write there waits for it. */
  titan_buffer_read: {
    parameters: [
      "u64", // uint64_t program
      "u64", // uint64_t offset
      "buffer", // uint8_t *bytes
      "u64", // uint64_t num_bytes
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** Copies bytes into the program's arena: on the calling thread, between two actions of a run that is under way. */
  titan_buffer_write: {
    parameters: [
      "u64", // uint64_t program
      "u64", // uint64_t offset
      "buffer", // const uint8_t *bytes
      "u64", // uint64_t num_bytes
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** Opens a file to be read, from front to back where that is to be quick. */
  titan_file_open: {
    parameters: [
      "buffer", // const char *path
      "buffer", // uint64_t *file
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** Reads one part, or up to four at a time, which hashes them quicker: num_bytes of each file from its offset on, one behind the other into bytes, and into num_read how many there were. Where hashes is not null, it gets the SHA-256, 32 bytes, of each; that of a part which is shorter means nothing. */
  titan_file_read: {
    parameters: [
      "buffer", // const uint64_t *files
      "buffer", // const uint64_t *offsets
      "u32", // uint32_t num_parts
      "buffer", // uint8_t *bytes
      "u64", // uint64_t num_bytes
      "buffer", // uint8_t *hashes
      "buffer", // uint64_t *num_read
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** Reads parts as titan_file_read does, straight into the program's arena: of each part the stretches that it has, in the order of the file, behind those of the part before; num_stretches says how many. On the calling thread, between two actions of a run that is under way. The bytes are there before their hash is known. */
  titan_program_load: {
    parameters: [
      "u64", // uint64_t program
      "buffer", // const uint64_t *files
      "buffer", // const uint64_t *offsets
      "u32", // uint32_t num_parts
      "u64", // uint64_t num_bytes
      "buffer", // const titan_stretch *stretches
      "buffer", // const uint64_t *num_stretches
      "buffer", // uint8_t *hashes
      "buffer", // uint64_t *num_read
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** Closes a file, once the calls that read it have ended. */
  titan_file_close: {
    parameters: [
      "u64", // uint64_t file
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** Joins the other ranks, with which mpirun or srun started this one, through the module libtitan_<name>, which lies beside this library. The device's programs may then have collectives, and all ranks load them in the same order. When one gives up waiting, so do the others. Ranks of a host that may use the same processors share them out, if there are enough, and bind their device's threads. Once in a process. */
  titan_comm_open: {
    parameters: [
      "u64", // uint64_t device
      "buffer", // const char *name
      "buffer", // const titan_comm_options *options
      "buffer", // uint64_t *comm
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** Describes the communicator. */
  titan_comm_describe: {
    parameters: [
      "u64", // uint64_t comm
      "buffer", // titan_comm_info *info
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** Fills all with num_bytes from each rank, in their order; of none it is a barrier. Not while a program of the device runs. */
  titan_comm_gather: {
    parameters: [
      "u64", // uint64_t comm
      "buffer", // const uint8_t *mine
      "u64", // uint64_t num_bytes
      "buffer", // uint8_t *all
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
  /** The last collectives of each rank of this host as text, cut to size - 1 bytes: what each does or has done, where, and how long ago. */
  titan_comm_record: {
    parameters: [
      "u64", // uint64_t comm
      "buffer", // char *text
      "u64", // uint64_t size
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** What this rank has done so far in collectives of a kind: its number among the COLLECTIVE lines of kernels.def. */
  titan_comm_count: {
    parameters: [
      "u64", // uint64_t comm
      "u32", // uint32_t collective
      "buffer", // titan_comm_traffic *traffic
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** Tells the other ranks that this one does not go on, and why: who waits for it, now or later, fails with that. It is for what goes wrong outside of libtitan; ranks tell each other by themselves of what fails inside. There is no closing behind it. */
  titan_comm_give_up: {
    parameters: [
      "u64", // uint64_t comm
      "buffer", // const char *why
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** Ends the processes of all ranks at once, this one too. */
  titan_comm_abort: {
    parameters: [
      "u64", // uint64_t comm
      "i32", // int32_t exit_code
      "buffer", // titan_error *error
    ],
    result: "i32",
  },
  /** Leaves the other ranks, who do so too, and makes the handle invalid. A process that ends without it counts as failed. */
  titan_comm_close: {
    parameters: [
      "u64", // uint64_t comm
      "buffer", // titan_error *error
    ],
    result: "i32",
    nonblocking: true,
  },
} as const;
