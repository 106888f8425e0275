import { assertAlmostEquals, assertEquals } from "@std/assert";
import { commMs, type InstructionTime, kernelRows, phaseOf, profileText } from "../../../train/report/profile.ts";
import { someProfile, twoMicrobatches } from "./profiles.ts";

const rates = { gflops: 2000, gbytes: 10 };

Deno.test("a gradient's scope is backward, what the update runs is update, and all else forward", () => {
  const { instructions } = twoMicrobatches(1), phases = Map.groupBy(instructions, phaseOf);
  assertEquals([...phases].map(([phase, list]) => [phase, list.length]), [["forward", 8], ["backward", 4], [
    "update",
    2,
  ]]);
});

Deno.test("kernels are gathered by module with its numbers left out, in the mean of the steps, the longest first", () => {
  const rows = kernelRows([twoMicrobatches(9), twoMicrobatches(10)], rates);
  assertEquals(rows.map(({ kernel, module, calls }) => [kernel, module, calls]), [
    ["gemm", "layers.*.attention.wq'", 4],
    ["adamw", "update", 1],
    ["gemm", "layers.*.attention.wq", 4],
    ["attention", "layers.*.attention", 2],
    ["embedding", "tok_embeddings", 2],
    ["copy", "output loss", 1],
  ]);
  assertAlmostEquals(rows.reduce((sum, { ms }) => sum + ms, 0), 0.09, 1e-9);
  assertAlmostEquals(rows[0].ms, 0.04, 1e-9);
  assertAlmostEquals(rows[0].share, 0.04 / 0.29, 1e-6);
});

Deno.test("rates are those of all calls, and the one nearer to what the device can do is named", () => {
  const [gradient, adamw] = kernelRows([twoMicrobatches(1)], rates);
  assertAlmostEquals(gradient.gflops, 16e6 / 10e-6 / 1e9, 1e-6);
  assertAlmostEquals(gradient.ofDevice, 0.8, 1e-9);
  assertEquals(gradient.bound, "product");
  assertAlmostEquals(adamw.gbytes, 2e5 / 17e-6 / 1e9, 1e-6);
  assertAlmostEquals(adamw.ofDevice, 2e5 / 17e-6 / 1e10, 1e-9);
  assertEquals(adamw.bound, "memory");
});

Deno.test("the table names phases and what is lost between instructions, and sums up kernels beyond the most", () => {
  assertEquals(
    profileText([twoMicrobatches(9), twoMicrobatches(10)], rates, 3),
    `Profile of steps 9 to 10: 0.29 ms a step (forward 0.03, backward 0.04, update 0.02, between instructions 0.20), \
0.50 ms wait for data
  kernel  module                  calls    ms  of step  GFLOP/s  GB/s     of device
  gemm    layers.*.attention.wq'      4  0.04    13.8%   1600.0   0.2   80% product
  adamw   update                      1  0.02     5.9%      0.6  11.8   118% memory
  gemm    layers.*.attention.wq       4  0.02     5.5%   2000.0   0.3  100% product
  3 more                              5  0.02     5.9%
  of device: the larger of GFLOP/s by 2000 and GB/s by 10.0, as measured`,
  );
});

Deno.test("a single step of no more kernels than the table has lines", () => {
  const text = profileText([someProfile(7, [{ section: "update", ran: [["adamw", "", 100, 1e6, 1e6]] }])], rates);
  assertEquals(
    text,
    `Profile of step 7: 0.30 ms a step (update 0.10, between instructions 0.20), 0.50 ms wait for data
  kernel  module  calls    ms  of step  GFLOP/s  GB/s    of device
  adamw   update      1  0.10    33.3%     10.0  10.0  100% memory
  of device: the larger of GFLOP/s by 2000 and GB/s by 10.0, as measured`,
  );
});

Deno.test("collectives run beside kernels: what of their time no kernel covers is told", () => {
  const profile = someProfile(7, [{ section: "microbatch", ran: [["gemm", "a", 100], ["gemm", "b", 100]] }]);
  const [first, second] = profile.instructions, { beginNs } = first;
  const collective = (fromUs: number, toUs: number): InstructionTime => ({
    ...first,
    kernel: "all_gather",
    stream: 1,
    beginNs: beginNs + 1000 * fromUs,
    endNs: beginNs + 1000 * toUs,
  });
  // The second product waits for the first collective, from 100 to 150 us.
  const later = { ...second, beginNs: second.beginNs + 5e4, endNs: second.endNs + 5e4 };
  const instructions = [first, later, collective(10, 150), collective(160, 180), collective(240, 290)];
  const recorded = [{ ...profile, instructions }], comm = commMs(recorded);
  assertAlmostEquals(comm.all, 0.21, 1e-9);
  assertAlmostEquals(comm.exposed, 0.05 + 0.04, 1e-9);
  const [, line] = profileText(recorded, rates).split("\n");
  assertEquals(line, "  collectives took 0.21 ms beside the kernels; for 0.09 ms of that no kernel ran (57.1% hidden)");
});
