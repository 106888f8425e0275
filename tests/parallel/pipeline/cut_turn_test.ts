import { assert, assertEquals, assertThrows } from "@std/assert";
import { interpret, type Memory } from "../../../graph/interpret.ts";
import { inBackward } from "../../../graph/ir.ts";
import { touchedStates } from "../../../graph/edit.ts";
import { remat } from "../../../graph/passes/remat.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { tile } from "../../../graph/passes/tile.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import { cutTurn } from "../../../parallel/pipeline/cut_turn.ts";
import { traceMicrobatch } from "../../../train/step.ts";
import { initialized, someRows, tinyLlama } from "../../model/tiny.ts";
import { inStages, runStages, sectionsOf, SIZES } from "./stage_runs.ts";

Deno.test("two microbatches through the sections of all stages leave the very sums that the whole graph leaves", () => {
  for (const tiedEmbeddings of [false, true]) {
    for (const count of [1, 2, 3, 4, 5]) {
      for (const halves of [false, true]) {
        const model = tinyLlama({ numLayers: 3, tiedEmbeddings }), documents = count % 2 === 0;
        const rows = someRows(4, 8, 32), of = (k: number, list: number[]) => list.slice(16 * k, 16 * (k + 1));
        const inputs = [0, 1].map((k) => ({
          ...{ tokens: of(k, rows.tokens), targets: of(k, rows.targets), positions: of(k, rows.positions) },
          ...documents ? { documents: of(k, rows.tokens).map((_, i) => Math.floor(i / 5)) } : {},
        }));
        const alone = initialized(model),
          memory: Memory = new Map(alone),
          whole = traceMicrobatch(model, { ...SIZES, documents });
        inputs.forEach((rows, k) => interpret(whole, { inputs: rows, memory: alone, first: k === 0 }));
        const { cut } = inStages(model, { count, documents });
        const prepare = (mode: "none" | "full") => (g: typeof whole) => remat(tile(simplify(g), cpu.chunks), { mode });
        const sections = sectionsOf(cut, halves, prepare(count === 3 ? "full" : "none"));
        inputs.forEach((rows, k) => runStages(sections, cut, { inputs: rows, memory, first: k === 0 }));
        for (const [name, { data }] of alone) {
          // Stages that share a parameter have a sum of its gradient each.
          const parts = [...memory].filter(([key]) => key === name || key.startsWith(`${name} of `));
          const found = data.map((_, i) => parts.reduce((sum, [, part]) => sum + part.data[i], 0));
          assert(data.every((x, i) => Math.abs(x - found[i]) <= 1e-14), `${name}, ${count} stages, halves ${halves}`);
        }
      }
    }
  }
});

Deno.test("what is made again is made in backward, and only what blocks leave for it is kept", () => {
  const { cut } = inStages(tinyLlama({ numLayers: 4 }), { count: 2 });
  const kept = (mode: "none" | "full") =>
    sectionsOf(cut, false, (g) => remat(simplify(g), { mode }))[0].forward!.states.filter((s) =>
      s.name.includes("/kept")
    );
  assert(kept("full").length < kept("none").length / 2, `${kept("full").length} of ${kept("none").length}`);
  assertEquals(new Set(kept("none").map((s) => [s.kind, s.of].join())), new Set(["activation,microbatch.0"]));
});

Deno.test("gradients of weights are left for the second half, and the first makes what the stage before waits for", () => {
  const { cut } = inStages(tinyLlama({ numLayers: 3 }), { count: 3 });
  const [first, middle, last] = sectionsOf(cut, true, simplify);
  const sums = ({ nodes }: { nodes: readonly Parameters<typeof touchedStates>[0][] }) =>
    nodes.flatMap((n) => touchedStates(n)).filter((name) => name.startsWith("gradient/"));
  assertEquals(sums(middle.backward_input!), []);
  assertEquals(new Set(sums(middle.backward_weight!)).size, 18); // of two blocks
  assert(middle.backward_input!.nodes.some((n) => touchedStates(n).includes("microbatch.1/gradient_out")));
  assertEquals(first.backward_input!.nodes, []); // nobody waits for it
  assertEquals(sums(last.backward_weight!), []); // it has no block: what it sums, it sums in forward
  assert(sums(last.forward!).includes("gradient/output.weight"));
});

Deno.test("what needs no gradient of a block belongs to forward: chunks of a head are gone when backward begins", () => {
  const model = tinyLlama({ numLayers: 2, vocabSize: 4096 });
  const { cut } = inStages(model, { count: 2 }), wanted = { ...cpu.chunks };
  const { forward, backward } = sectionsOf(cut, false, (g) => tile(simplify(g), wanted))[1];
  const heads = (nodes: readonly { scope: string }[]) => nodes.filter((n) => n.scope === "output").length;
  assert(heads(forward!.nodes.filter(inBackward)) > 0);
  assertEquals(heads(backward!.nodes.filter((n) => n.op !== "read")), 0);
});

Deno.test("a graph of no stage is refused", () => {
  assertThrows(() => cutTurn(traceMicrobatch(tinyLlama(), SIZES), { halves: false }), Error, "it is not of a stage");
});
