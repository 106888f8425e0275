/** The target `cpu`: how it runs each op, and what the native table of kernels says of that.
 * @module */
import { assert, assertEquals } from "@std/assert";
import { kernels, mapOps } from "../../../graph/kernels.ts";
import { ops } from "../../../graph/ops/mod.ts";
import { fusions } from "../../../graph/passes/fuse.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import { callOf } from "../../../graph/target/target.ts";
import { cases } from "../op_cases.ts";
import { applied, graphOf, titleOf } from "../op_graphs.ts";

/** What a rank does because of where it stands: pass `rank` makes other ops of them. */
const BY_RANK = ["slice_by_rank", "concat_by_rank", "keep_on_first"];

const nodes = cases.map((c) => ({ title: titleOf(c), node: graphOf(c.inputs, applied(c)).nodes[0] }));

Deno.test("the CPU runs every op of one rank, and has no entry for anything else", () => {
  assertEquals([...ops.keys()].filter((op) => !cpu.lowerings[op]).sort(), [...BY_RANK].sort());
  assertEquals(Object.keys(cpu.lowerings).filter((op) => !ops.has(op)), []);
});

Deno.test("every element-wise op is an operation of the kernel of maps, casts aside", () => {
  const elementwise = [...ops.values()].filter((op) => op.elementwise && !op.converts).map((op) => op.name);
  assertEquals(elementwise.filter((op) => !(op in mapOps)), []);
});

for (const { title, node } of nodes.filter(({ node }) => !ops.get(node.op)!.view && !ops.get(node.op)!.joins)) {
  Deno.test(`${title} calls a kernel of the native table, with all of its attributes and operands`, () => {
    const { kernel, attrs, operands } = callOf(cpu, node), known = cpu.kernels[kernel];
    assert(known, kernel);
    for (const { name } of known.attributes) assert(name in attrs, `${kernel} needs ${name}`);
    const { inputs, outputs } = node, given = operands?.(inputs, outputs) ?? [...inputs, ...outputs];
    const signature = [...known.inputs, ...known.outputs];
    if (!signature.some((o) => o.variadic)) assertEquals(given.length, signature.length);
  });
}

Deno.test("a kernel has scratch where its op asks for some, and only there", () => {
  const wrong = nodes.filter(({ node }) => {
    const asked = (cpu.lowerings[node.op]!.scratch?.(node, 2) ?? 0) > 0;
    return asked !== kernels[callOf(cpu, node).kernel as keyof typeof kernels].scratch;
  });
  assertEquals(wrong.map(({ title }) => title), []);
});

Deno.test("an op whose kernel can add into states says which of its outputs that is", () => {
  const added = (names: string[]) => names.sort();
  const can = Object.keys(cpu.lowerings).filter((op) => cpu.lowerings[op]!.accumulates);
  assertEquals(added(can), added([...ops.values()].filter((op) => op.into !== undefined).map((op) => op.name)));
  assertEquals(added(can), added([...ops.values()].filter((op) => op.attrs?.into).map((op) => op.name)));
});

Deno.test("every rule of fuse pays on the CPU", () => {
  assertEquals(fusions.map(([name]) => name), [...cpu.fusions]);
});
