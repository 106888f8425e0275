import { assertEquals } from "@std/assert";
import { targetOf } from "../../../graph/target/by_kind.ts";
import { cpu } from "../../../graph/target/cpu.ts";

Deno.test("each kind of device has the target of its name, as programs have it", () => {
  for (const kind of ["cpu", "cuda"] as const) assertEquals(targetOf({ kind }).name, kind);
});

Deno.test("a GPU before sm_90 runs attention by its own kernels, whose memory does not grow with the square of the tokens", () => {
  const knowsOrder = (level: string) => targetOf({ kind: "cuda", level }).fusions.has("orderedAttention");
  assertEquals(["sm_80", "sm_89", "sm_90", "sm_100", "sm_120"].map(knowsOrder), [false, false, true, true, true]);
  assertEquals(targetOf({ kind: "cpu", level: "avx512" }), cpu);
});
