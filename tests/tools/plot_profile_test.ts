import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { type Instruction, instructionsOf, profileSvg } from "../../tools/plot_profile.ts";
import { traceJson } from "../../train/report/chrome_trace.ts";
import type { InstructionTime, StepProfile } from "../../train/report/profile.ts";
import { at } from "../graph/origins.ts";

const instruction = (name: string, module: string, [begin, end]: [number, number], stream = 0): Instruction => ({
  ...{ name, module, stream, phase: module.endsWith("'") ? "backward" : "forward" },
  ...{ beginNs: 1e6 * begin, endNs: 1e6 * end },
});

/** Boxes in rows of rank 0: colour, left edge, width. */
const boxes = (svg: string): string[][] =>
  [...svg.matchAll(/<rect x="([\d.]+)" y="\d+" width="([\d.]+)" height="24" fill="(#\w+)"/g)].map((
    m,
  ) => [m[3], m[1], m[2]]);

Deno.test("the instructions of a trace are those of rank 0, from its first one on", () => {
  const time = (kernel: string, scope: string, begin: number, stream: number): InstructionTime => ({
    ...{ kernel, ...at(scope), stream, section: "microbatch", action: 0, flops: 0, bytes: 0 },
    ...{ beginNs: begin, endNs: begin + 1000 },
  });
  const step = (...instructions: InstructionTime[]): StepProfile => ({
    ...{ step: 1, startMs: 0, calledMs: 0, endMs: 1, instructions },
  });
  const text = traceJson([
    [step(time("gemm", "layers.0.wq", 5000, 0), time("all_gather", "layers.1", 3000, 1))],
    [step(time("copy", "output", 1000, 0))],
  ]);
  const ofRank0 = { phase: "forward" };
  assertEquals(instructionsOf(text), [
    { ...ofRank0, name: "gemm", module: "layers.0.wq", stream: 0, beginNs: 2000, endNs: 3000 },
    { ...ofRank0, name: "all_gather", module: "layers.1", stream: 1, beginNs: 0, endNs: 1000 },
  ]);
});

Deno.test("a file without instructions is refused", () => {
  assertThrows(() => instructionsOf('{"traceEvents":[]}'), SyntaxError, "is it a trace?");
});

Deno.test("kernels of a block are one box until a gap or backward, collectives are below them", () => {
  const svg = profileSvg("two blocks", [{
    title: "one step",
    instructions: [
      instruction("gemm", "layers.0.wq", [0, 20]),
      instruction("gemm", "layers.0.wo", [20, 30]),
      instruction("gemm", "layers.1.wq", [30, 40]),
      instruction("gemm", "layers.1.wo", [50, 60]),
      instruction("gemm", "layers.1.wo'", [60, 100]),
      instruction("all_gather", "layers.1", [20, 45], 1),
    ],
  }]);
  assertEquals(boxes(svg), [
    ["#f3f5f7", "72", "872"],
    ["#1f6feb", "72.0", "261.6"],
    ["#1f6feb", "333.6", "87.2"],
    ["#1f6feb", "508.0", "87.2"],
    ["#d1570b", "595.2", "348.8"],
    ["#f3f5f7", "72", "872"],
    ["#2da44e", "246.4", "218.0"],
  ]);
  assertStringIncludes(svg, "100 ms; collectives 25 ms, 80 % of it beside kernels");
  assertEquals([...svg.matchAll(/fill="white">(\d)</g)].map((m) => m[1]), ["0", "1", "1", "1", "1"]);
  assertEquals(["update", "all_reduce"].some((kind) => svg.includes(`>${kind}<`)), false);
});

Deno.test("steps of one picture have one scale", () => {
  const step = (title: string, ms: number) => ({ title, instructions: [instruction("gemm", "output", [0, ms])] });
  const widths = boxes(profileSvg("", [step("a", 50), step("b", 100)])).filter(([color]) => color === "#1f6feb");
  assertEquals(widths, [["#1f6feb", "72.0", "436.0"], ["#1f6feb", "72.0", "872.0"]]);
});

Deno.test("a step of one process has no row for collectives, and says nothing of them", () => {
  const svg = profileSvg("alone", [{ title: "one step", instructions: [instruction("gemm", "output", [0, 20])] }]);
  assertEquals(boxes(svg), [["#f3f5f7", "72", "872"], ["#1f6feb", "72.0", "872.0"]]);
  assertStringIncludes(svg, ">20 ms<");
});
