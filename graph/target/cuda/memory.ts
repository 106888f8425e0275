/** What is taken of a GPU's memory beside a program's arena, for plans that are made without a GPU: estimates, rather too high than too low,
 * each with its source.
 * @module */
import { onlyPlaces, stateUse } from "../../facts.ts";
import type { Graph, Node } from "../../ir.ts";
import { num, nums } from "../../op.ts";

const MIB = 2 ** 20;

/** CUDA's context with the kernels that are loaded into it: 0.5 GiB on an A100 (github.com/JBjoernskov/Twin4Build/issues/134), 555 MiB on a GPU of 188
 * multiprocessors (github.com/ggml-org/llama.cpp/pull/23604), 616 MiB with PyTorch (github.com/LMCache/LMCache/issues/4019). */
const CONTEXT = 616 * MIB;

/** cuBLASLt's workspace: `Products::WORKSPACE_BYTES` in `csrc/cuda/products.h`. */
const WORKSPACE = 32 * MIB;

/** A kernel in a CUDA graph takes about 10 KB (github.com/NVIDIA/cccl/pull/3768). */
const GRAPH_NODE = 10e3;

/** Graphs of a section: of a step's first microbatch, its last, and of those between, whose inputs have either of two places. */
const GRAPHS = 4;

/** GPUs of a host. */
const HOST = 8;

/** A channel of NCCL, in which a GPU receives from one of its host and sends to another: buffers of three protocols to receive in, 4 MiB (NCCL_BUFFSIZE),
 * 4.7 and 0.5 MiB, and a place for flags to send by, in pages of 2 MiB (NCCL 2.30, as are all numbers from here on: `src/init.cc`,
 * `src/transport/p2p.cc`). */
const CHANNEL = 12 * MIB;

/** Channels of collectives that 8 A100 or H100 have, as NCCL's log tells: two for each ring that it finds (`src/graph/connect.cc`). */
const CHANNELS = 24;

/** Channels to each other GPU that messages go to; fewer in groups of several hosts, where a network limits them (`src/graph/paths.cc`). */
const MESSAGE_CHANNELS = { host: 32, hosts: 4 };

/** Messages between hosts: 16 pieces of 128 KiB for each of 32 channels, both ways (`src/transport/net.cc`). */
const MESSAGES_BETWEEN_HOSTS = 128 * MIB;

/** Ways in which channels connect neighbours, by the collective: rings go one way; trees, by which small sums travel, both. */
const WAYS: Readonly<Record<string, number>> = { all_gather: 1, reduce_scatter: 1, all_reduce: 2 };

/** Of collectives that NCCL makes of messages: with how many GPUs a rank exchanges them both ways. In a ring it receives from one and sends to
 * another. */
const PEERS: Readonly<Record<string, (node: Node) => number>> = {
  all_to_all: ({ attrs }) => num(attrs.size) - 1,
  ring_shift: () => 1,
  exchange: ({ attrs: { member, from, to } }) => {
    const [senders, receivers] = [nums(from), nums(to)],
      others = (ends: readonly number[], at: readonly number[]) => at.filter((_, i) => ends[i] === member);
    return new Set([...others(senders, receivers), ...others(receivers, senders)]).size;
  },
};

/** What NCCL takes for a group of ranks that have these collectives. Switches do not sum, as `csrc/comm/nccl/nccl.cpp` has it. */
function groupBytes(ranks: readonly number[], nodes: readonly Node[]): number {
  const onHosts = Map.groupBy(ranks, (rank) => Math.floor(rank / HOST)),
    most = (numbers: readonly number[]) => Math.max(0, ...numbers);
  const peers = most(nodes.map((node) => PEERS[node.op]?.(node) ?? 0)),
    ways = most(nodes.map(({ op }) => WAYS[op] ?? 0));
  const local = most([...onHosts.values()].map(({ length }) => length)), isOfHost = onHosts.size === 1;
  const channels = isOfHost ? MESSAGE_CHANNELS.host : MESSAGE_CHANNELS.hosts;
  const messages = Math.min(peers, local - 1) * channels * CHANNEL +
    (isOfHost || peers === 0 ? 0 : MESSAGES_BETWEEN_HOSTS);
  return messages + ways * CHANNELS * CHANNEL;
}

/** What is taken beside the arena. @param graphs of a rank, as they run. */
export function memoryBeside(graphs: readonly Graph[]): Readonly<Record<string, number>> {
  const nodes = graphs.flatMap((graph) => graph.nodes);
  const collectives = nodes.filter(({ attrs }) => attrs.group !== undefined && num(attrs.size) > 1);
  const groups = [...Map.groupBy(collectives, ({ attrs }) => String(attrs.group)).values()];
  const buffers = groups.map((group) => groupBytes(nums(group[0].attrs.group), group));
  const launched = nodes.filter((node) => !onlyPlaces(node.op) && stateUse(node) !== "reads");
  const name = `NCCL's buffers for ${groups.length} group${groups.length === 1 ? "" : "s"} of ranks`;
  return {
    "CUDA's context and libraries": CONTEXT + WORKSPACE,
    "graphs of kernels": GRAPHS * GRAPH_NODE * launched.length,
    ...(groups.length > 0 ? { [name]: buffers.reduce((a, b) => a + b) } : {}),
  };
}
