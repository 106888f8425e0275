import { assert, assertEquals } from "@std/assert";
import { Builder } from "../../../../graph/builder.ts";
import type { Attrs, Graph } from "../../../../graph/ir.ts";
import { collectives } from "../../../../graph/target/cpu/collectives.ts";
import { cuda } from "../../../../graph/target/cuda.ts";

const MIB = 2 ** 20, HOST = [0, 1, 2, 3, 4, 5, 6, 7];

/** A rank's graph with collectives of groups. */
function meeting(...collectives: readonly (readonly [op: string, group: readonly number[], attrs?: Attrs])[]): Graph {
  const builder = new Builder("meeting", [], "rank"), x = builder.input("x", { dtype: "f32", shape: [64, 64] });
  for (const [op, group, attrs] of collectives) {
    builder.emit(op, [x], { axes: ["tp"], size: group.length, group, ...attrs });
  }
  return builder.finish();
}

/** MiB that NCCL takes on a GPU whose rank runs these graphs. */
function ncclMiB(graphs: readonly Graph[]): number {
  return (Object.entries(cuda.memoryBeside!(graphs)).find(([name]) => name.startsWith("NCCL"))?.[1] ?? 0) / MIB;
}

const gather = { dim: 0 }, swap = { split: 0, join: 1 };
const bytesOf = (graph: Graph) => Object.values(cuda.memoryBeside!([graph])).reduce((sum, bytes) => sum + bytes);

Deno.test("8 H100 were measured to take 1.06 GB before all had sent to all, and 4.34 GB then: no more than is counted, and nearly all of it", () => {
  // https://github.com/NVIDIA/nccl/issues/1685. Switches summed there (NVLS), which takes 16 channels both ways for each GPU, with 8 chunks of 128 KiB.
  const switches = 8 * 32 * MIB, before = switches + bytesOf(meeting(["all_gather", HOST, gather]));
  const then = switches +
    bytesOf(meeting(["all_gather", HOST, gather], ["all_reduce", HOST], ["all_to_all", HOST, swap]));
  assert(before > 1.06e9 && before < 1.3e9, `${before}`);
  assert(then > 4.34e9 && then < 4.5e9, `${then}`);
});

Deno.test("4 A100 were measured to take 544 to 688 MiB for a group, of which an earlier NCCL had 256 for messages between hosts", () => {
  // https://github.com/NVIDIA/nccl/issues/964
  const taken = ncclMiB([meeting(["all_reduce", [0, 1, 2, 3]])]);
  assert(taken >= 688 - 256 && taken <= 688, `${taken}`);
});

Deno.test("every collective that GPUs run takes buffers", () => {
  for (const op of Object.keys(collectives)) {
    const attrs = { group: [0, 1], size: 2, member: 0, from: [0], to: [1] };
    assert(ncclMiB([{ nodes: [{ op, attrs, inputs: [], outputs: [] }] } as unknown as Graph]) > 0, op);
  }
});

Deno.test("the same ranks have one communicator, in whatever graphs they meet, and others have one of their own", () => {
  const [one, other] = [["all_reduce", [0, 1]], ["all_reduce", [0, 2]]] as const;
  const once = ncclMiB([meeting(one)]);
  assertEquals(ncclMiB([meeting(one, one), meeting(one)]), once);
  assertEquals(ncclMiB([meeting(one), meeting(other)]), 2 * once);
  const names = (...list: (readonly [string, readonly number[]])[]) =>
    Object.keys(cuda.memoryBeside!([meeting(...list)])).slice(2);
  assertEquals([names(), names(one), names(one, other)], [[], ["NCCL's buffers for 1 group of ranks"], [
    "NCCL's buffers for 2 groups of ranks",
  ]]);
});

Deno.test("sums of a few numbers travel by trees too", () => {
  assertEquals(ncclMiB([meeting(["all_reduce", HOST])]) - ncclMiB([meeting(["all_gather", HOST, gather])]), 24 * 12);
});

Deno.test("messages take channels to each GPU of the host, and between hosts a buffer for all", () => {
  assertEquals(ncclMiB([meeting(["ring_shift", HOST])]), 32 * 12);
  assertEquals(ncclMiB([meeting(["all_to_all", [0, 8], swap])]), 128);
  assertEquals(ncclMiB([meeting(["all_to_all", [0, 1, 8, 9], swap])]), 128 + 4 * 12);
  const type = { dtype: "f32", shape: [64, 64] };
  // A stage in the middle hears of both neighbours; what they say to others is none of its own.
  const exchange = (member: number, from: readonly number[], to: readonly number[]) =>
    ncclMiB([meeting(["exchange", [0, 1, 2, 3], { member, from, to, types: from.map(() => type) }])]);
  assertEquals([exchange(1, [1, 3], [2, 0]), exchange(1, [0, 1], [1, 2]), exchange(1, [1, 2, 2], [2, 1, 3])], [
    32 * 12,
    2 * 32 * 12,
    32 * 12,
  ]);
});

Deno.test("kernels take memory in the graphs that hold them, and views do not", () => {
  const builder = new Builder("two", [], "rank"), x = builder.input("x", { dtype: "f32", shape: [2, 3] });
  const [y] = builder.emit("relu", [x], {});
  builder.emit("transpose", [y], { dims: "A B -> B A" });
  assertEquals(cuda.memoryBeside!([builder.finish()])["graphs of kernels"], 40_000);
});

Deno.test("cuBLASLt's workspace is that which the engine allocates", async () => {
  const header = await Deno.readTextFile(new URL("../../../../csrc/cuda/products.h", import.meta.url));
  const [, mib, shift] = header.match(/WORKSPACE_BYTES = size_t\{(\d+)\} << (\d+)/)!;
  const [own] = Object.values(cuda.memoryBeside!([]));
  assertEquals(own, 616 * MIB + Number(mib) * 2 ** Number(shift));
});
