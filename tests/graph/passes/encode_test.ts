import { assert, assertEquals, assertThrows } from "@std/assert";
import { forEachIndex } from "../../../graph/array.ts";
import { f32, f64, opOf } from "../../../graph/builder.ts";
import { dtypeBytes, type Graph, type State, type Value } from "../../../graph/ir.ts";
import { type Kernel, kernels, mapOps } from "../../../graph/kernels.ts";
import { flopsOf } from "../../../graph/op.ts";
import { programOf } from "../../../graph/ops/map.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import { encode } from "../../../graph/passes/encode.ts";
import type { MemoryPlan, SectionMemory } from "../../../graph/passes/memory.ts";
import { fullPrecision } from "../../../graph/passes/precision.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import type { Place } from "../../../graph/place.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { trace, traceGraph } from "../../../graph/trace.ts";
import { callOf } from "../../../graph/target/target.ts";
import { packed } from "../../../graph/view.ts";
import { golden } from "../../golden.ts";
import { forSeeds } from "../random_graphs.ts";
import { decode, type DecodedInstruction, type DecodedTensor } from "./decode.ts";
import { randomStep } from "./graphs.ts";
import { at } from "../origins.ts";
import { scopeText } from "../../../graph/print.ts";
import { fuse, materialize, memory, precision } from "./on_cpu.ts";

const lower = (graph: Graph): Graph => materialize(fuse(simplify(graph)));
const planOf = (...graphs: Graph[]): MemoryPlan => memory(graphs, { threads: 3 });

/** Bytes where the elements of a tensor start, each once. */
function bytesOf(space: string, start: number, { offset, shape, strides }: Place["view"], size: number): string {
  const places = new Set<number>();
  forEachIndex(shape, [strides], ([at]) => places.add(start + size * (offset + at)));
  return `${space} ${[...places].sort((a, b) => a - b)}`;
}

function bytesOfTensor({ space, dtype, offset, shape, strides }: DecodedTensor): string {
  if (dtype === "bytes") return `${shape} bytes from ${offset}`;
  return bytesOf(space, offset, { offset: 0, shape, strides }, dtypeBytes[dtype]);
}

/** What a section must hold, told from the plan: kernel, scope and the bytes of every operand. */
function expected(plan: MemoryPlan, section: SectionMemory): string[] {
  const { graph, places } = section, lines: string[] = [];
  const at = ({ base, view }: Place): string =>
    base.kind === "input"
      ? bytesOf("input", section.inputs.find((s) => s.name === base.names[0])!.offset, view, dtypeBytes[base.dtype])
      : bytesOf("arena", section.spotOf(base).offset, view, dtypeBytes[base.dtype]);
  const of = (v: Value): string => at(places.of.get(v)!);
  const add = (kernel: string, scope: string, operands: readonly string[]) =>
    lines.push([kernel, scope, ...operands].join("; "));
  for (const node of graph.nodes) {
    if (node.op === "read" || places.isView(node) || section.inPlaceAssigns.has(node)) continue;
    if (node.op === "concat") {
      for (const { value, place } of places.copiedPieces(node)) add("copy", scopeText(node), [of(value), at(place)]);
    } else if (node.op === "assign" || node.op === "accumulate") {
      const [name] = node.attrs.states as string[], { state, offset } = plan.states.get(name)!;
      const target = bytesOf("arena", offset, packed(state.shape), dtypeBytes[state.dtype]);
      add(node.op === "assign" ? "copy" : "accumulate", scopeText(node), [of(node.inputs[0]), target]);
    } else {
      const { kernel, operands: ordered } = callOf(plan.target, node), scratch = section.scratchOf(node);
      const values = ordered?.(node.inputs, node.outputs) ?? [...node.inputs, ...node.outputs];
      const operands = values.map((v) => v ? of(v) : "absent");
      if (scratch) operands.push(`${scratch.bytes} bytes from ${scratch.offset}`);
      add(kernel, scopeText(node), operands);
    }
  }
  for (const { name, value, offset } of section.outputs) {
    add("copy", `output ${name}`, [of(value), bytesOf("output", offset, packed(value.shape), dtypeBytes[value.dtype])]);
  }
  return lines;
}

/** Fails unless the number and the kinds of operands are those of the kernel's signature. */
function assertSignature({ kernel, operands, attrs }: DecodedInstruction): void {
  const { inputs, outputs, scratch, dtypes }: Kernel = kernels[kernel], signature = [...inputs, ...outputs];
  const variadic = signature.filter((o) => o.variadic).length, n = Number(attrs.n ?? attrs.inputs ?? 0);
  const single = signature.length - variadic + (scratch ? 1 : 0);
  if (kernel === "adamw") assertEquals(operands.length, variadic * n + single);
  else if (variadic > 0) {
    assert(operands.length >= n + single && (operands.length > single || !outputs.some((o) => o.variadic)));
  } else assertEquals(operands.length, single);
  operands.forEach((o, i) => assert(o || signature[i].optional, `operand ${i} of ${kernel} is absent`));
  const real = operands.filter((o) => o && !["bytes", "i32", "bf16"].includes(o.dtype)).map((o) => o!.dtype);
  if (kernel !== "copy") assert(real.every((d) => d === real[0] && (dtypes as readonly string[]).includes(d)));
  if (scratch) assertEquals(operands.at(-1)!.dtype, "bytes");
}

Deno.test("a product over experts is one batched product, and so is each of its gradients; nothing is copied", () => {
  const [E, C, D, F] = [4, 3, 2, 5];
  const states = ([["w1", [E, F, D]], ["w2", [E, D, F]]] as const).map(([name, shape]): State => (
    { name, kind: "parameter", ...f32(...shape) }
  ));
  for (const param of ["f32", "bf16"] as const) {
    const forward = traceGraph("experts", states, (builder) => {
      const x = new Tensor(builder, builder.input("x", f32(E, C, D)));
      const [w1, w2] = states.map((s) => new Tensor(builder, builder.read(s.name)));
      const hidden = x.contract("e c d, e f d -> e c f", w1).silu();
      return { loss: hidden.contract("e c f, e d f -> e c d", w2).square().sum() };
    });
    const graph = autodiff(forward, { of: "loss", states: ["w1", "w2"], inputs: ["x"], keep: false });
    const [section] = decode(encode(planOf(lower(precision(graph, { ...fullPrecision, param })))).bytes).sections;
    const products = section.instructions.filter((i) => i.kernel === "gemm");
    assertEquals(products.length, 6, "2 products, and 2 gradients of each");
    assertEquals(products.flatMap((i) => i.operands.map((o) => o!.shape[0])), Array(3 * 6).fill(E));
    assertEquals(section.instructions.filter((i) => i.kernel === "copy").map((i) => i.scope), ["output gradient/x"]);
  }
});

Deno.test("a program holds what its plan says: random graphs, decoded", () => {
  forSeeds(200, (seed) => {
    const graph = seed % 5 ? lower(randomStep(seed)) : materialize(randomStep(seed)), plan = planOf(graph);
    const encoded = encode(plan), program = decode(encoded.bytes), [section] = plan.sections, [own] = program.sections;
    assertEquals([program.threads, program.arenaBytes], [3, plan.arenaBytes]);
    assertEquals([program.inputBytes, program.outputBytes], [section.inputBytes, section.outputBytes]);
    const actual = own.instructions.map(({ kernel, scope, operands }) =>
      [kernel, scope, ...operands.map((o) => o ? bytesOfTensor(o) : "absent")].join("; ")
    );
    assertEquals(actual, expected(plan, section));
    own.instructions.forEach(assertSignature);
    const [info] = encoded.sections;
    assertEquals(
      info.instructions.map((i) => `${i.kernel} ${scopeText(i)}`),
      own.instructions.map((i) => `${i.kernel} ${i.scope}`),
    );
    assertEquals(sum(info.instructions.map((i) => i.flops)), sum(flopsThatRun(section)));
    assertEquals([info.name, info.index, info.inputBytes], [graph.name, 0, section.inputBytes]);
  });
});

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

/** FLOPs of the nodes that become instructions of their own, and none for a copy. */
function flopsThatRun({ graph, places }: SectionMemory): number[] {
  return graph.nodes.filter((n) => n.op !== "concat" && !places.isView(n)).map((n) => flopsOf(opOf(n.op), n));
}

Deno.test("an instruction tells its FLOPs, and the bytes of its tensors with repeated elements once", () => {
  const graph = traceGraph("product", [], (builder) => {
    const [a, b, c] = [f32(5, 4), f32(4, 3), f32(3)].map((t, i) => new Tensor(builder, builder.input(`x${i}`, t)));
    return { y: a.contract("i k, k j -> i j", b).add(c) };
  });
  const { sections: [{ instructions }] } = encode(planOf(lower(graph)));
  assertEquals(instructions.map(({ kernel, flops, bytes }) => [kernel, flops, bytes]), [
    ["gemm", 2 * 5 * 4 * 3, 4 * (20 + 12 + 15)],
    ["map", 15, 4 * (15 + 3 + 15)],
    ["copy", 0, 4 * (15 + 15)],
  ]);
});

/** `arena+64 f64[2,3:3,1]` */
function tensorText(tensor: DecodedTensor | undefined): string {
  if (!tensor) return "-";
  const { space, dtype, offset, shape, strides } = tensor;
  return `${space}+${offset} ${dtype}[${shape}${shape.length > 0 ? `:${strides}` : ""}]`;
}

/** A norm and a SwiGLU behind it, and the gradients of their weights: 3 rows of 4. */
function feedForward(): Graph {
  const weights = { norm: [4], w1: [6, 4], w2: [4, 6], w3: [6, 4] };
  const states = Object.entries(weights).map(([name, shape]): State => ({ name, kind: "parameter", ...f64(...shape) }));
  const forward = traceGraph("feed_forward", states, (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(3, 4)));
    const [norm, w1, w2, w3] = states.map((s) => new Tensor(builder, builder.read(s.name)));
    const [y] = x.apply("rmsnorm", [norm], { eps: 0.1 }),
      project = (t: Tensor, w: Tensor) => t.contract("b i, o i -> b o", w);
    return { loss: project(project(y, w1).silu().mul(project(y, w3)), w2).square().sum() };
  });
  return autodiff(forward, { of: "loss", states: Object.keys(weights) });
}

Deno.test("encode prints a feed-forward block with its gradients", () => {
  const { sections: [{ name, instructions }] } = decode(encode(planOf(lower(feedForward()))).bytes);
  const lines = instructions.map(({ kernel, scope, operands, attrs }) => {
    const words = Object.entries(attrs).map(([key, value]) => ` ${key}=${Array.isArray(value) ? `[${value}]` : value}`);
    return `  ${kernel}${words.join("")}${scope ? `  @${scope}` : ""}\n${
      operands.map((o) => `    ${tensorText(o)}\n`).join("")
    }`;
  });
  golden("graph/encode", `section ${name}\n${lines.join("")}`);
});

const only = (graph: Graph): DecodedInstruction[] => [...decode(encode(planOf(graph)).bytes).sections[0].instructions];

Deno.test("sections are numbered in order, share equal tensors and texts, and the host buffers fit the largest", () => {
  const [a, b] = [4, 100].map((n) => ({ ...trace((x) => x.exp(), f64(n)), name: `of ${n} älteren` }));
  const encoded = encode(planOf(a, b)), program = decode(encoded.bytes);
  assertEquals(program.sections.map((s) => s.name), ["of 4 älteren", "of 100 älteren"]);
  assertEquals(encoded.sections.map((s) => s.index), [0, 1]);
  assertEquals([program.inputBytes, program.outputBytes], [832, 832]);
  const once = encode(planOf(a)).bytes.length, twice = encode(planOf(a, { ...a, name: "of 4 ölteren" })).bytes;
  // One more section of two instructions (map, copy), two operands each, and the map's six words; no tensor, only its name.
  assertEquals(twice.length - once, 32 + 2 * 48 + 4 * 4 + 6 * 8 + 16);
});

Deno.test("collectives are on a stream of their own, and each stream waits for what it needs of the other", () => {
  const graph = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(4, 2))), attrs = { axes: ["tp"], size: 2, group: [0, 1] };
    const a = x.exp(), sum = a.apply("all_reduce", [], { ...attrs, by: "sum" })[0];
    const beside = x.neg();
    return { y: sum.add(beside) };
  });
  const plain = { ...graph, name: "before" }, [, section] = decode(encode(planOf(plain, graph)).bytes).sections;
  const lines = section.instructions.map((
    { kernel, stream, waits },
  ) => [kernel, stream, waits.map((w) => w.instruction)]);
  // Behind the five instructions of the section before. What a kernel writes, collectives may still read, or write, in an earlier action.
  assertEquals(lines, [["map", 0, [1, 6]], ["all_reduce", 1, [5]], ["map", 0, []], ["map", 0, [6]], ["copy", 0, []]]);
});

Deno.test("map programs are one word an instruction, then the results' registers", () => {
  const graph = fuse(trace((c, x, y) => [c.select(x.mul(2.5), y), x.exp()], f64(3), f64(3), f64(3)));
  const [{ attrs }] = only(graph),
    { steps, constants, results } = programOf(graph.nodes.find((n) => n.op === "map")!.attrs);
  const code = attrs.code as bigint[],
    field = (word: bigint, at: number, bits: number) => Number(word >> BigInt(at) & (1n << BigInt(bits)) - 1n);
  assertEquals([attrs.inputs, attrs.registers, attrs.constants], [3n, BigInt(4 + steps.length), constants]);
  steps.forEach(([name, ...registers], i) => {
    const { code: op } = mapOps[name as keyof typeof mapOps];
    assertEquals([field(code[i], 0, 16), field(code[i], 16, 12)], [op, 4 + i]);
    assertEquals([28, 40, 52].map((at) => field(code[i], at, 12)), [...registers, 0, 0].slice(0, 3));
  });
  assertEquals(code.slice(steps.length).map(Number), [...results]);
});

Deno.test("single element-wise nodes, casts and constants are maps too", () => {
  const [constant, mul] = only(trace((x) => x.mul(x.constant(7, [2])), f64(2)));
  assertEquals([constant.attrs.constants, constant.attrs.code, constant.operands.length], [[7], [0n], 1]);
  assertEquals([mul.attrs.inputs, mul.attrs.registers, mul.operands.length], [2n, 3n, 3]);
  const [cast] = only(trace((i) => i.cast("f64"), { dtype: "i32", shape: [2] }));
  assertEquals([cast.attrs.inputs, cast.attrs.code, cast.operands.map((o) => o!.dtype)], [1n, [0n], ["i32", "f64"]]);
});

Deno.test("gradients overwrite in the first microbatch, add later, and know where they were added", () => {
  const gradient: State = { name: "gradient/w", kind: "gradient", of: "w", ...f64(3, 2) };
  const modes = [undefined, true, false].map((begin) => {
    const graph = traceGraph("g", [gradient], (builder) => {
      const [dy, x] = [builder.input("dy", f64(4, 3)), builder.input("x", f64(4, 2))];
      const attrs = { dims: "b o, b i -> o i", ...(begin === undefined ? {} : { into: ["gradient/w"], begin }) };
      const [y] = builder.emit("contract", [dy, x], attrs);
      if (begin === undefined) builder.output("y", y);
    });
    return only(graph)[0].attrs.accumulate;
  });
  assertEquals(modes, [0n, 2n, 1n]);
});

Deno.test("a value goes into several states piece by piece", () => {
  const states = [3, 1].map((rows): State => ({ name: `w${rows}`, kind: "parameter", ...f64(rows, 2) }));
  const graph = traceGraph("g", states, (builder) => {
    const x = builder.input("x", f64(2, 4)), [turned] = builder.emit("transpose", [x], { dims: "a b -> b a" });
    builder.emit("accumulate", [turned], { states: ["w3", "w1"], begin: true });
  });
  const plan = planOf(graph), [large, small] = decode(encode(plan).bytes).sections[0].instructions;
  assertEquals([large.kernel, large.attrs.accumulate], ["accumulate", 2n]);
  assertEquals(large.operands.map(tensorText), ["input+0 f64[3,2:1,4]", "arena+0 f64[3,2:2,1]"]);
  assertEquals(small.operands.map(tensorText), ["input+24 f64[1,2:1,4]", "arena+48 f64[1,2:2,1]"]);
});

Deno.test("an operand that a kernel cannot take is an error that names node, place and reason", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, w] = [f64(3, 2), f64(3)].map((type, i) => new Tensor(builder, builder.input(`x${i}`, type)));
    builder.origin = at("layers.1");
    return { y: x.transpose(0, 1).apply("rmsnorm", [w], { eps: 0.1 })[0] };
  });
  const refused = 'Cannot run "rmsnorm" of layers.1: operand 0 is not dense in its last dim';
  assertThrows(() => encode(planOf(graph)), Error, refused);
  assertEquals(only(materialize(graph)).map((i) => i.kernel), ["copy", "rmsnorm", "copy"]);
  const deep = trace((x) => x.broadcastTo([2, 2, 2, 2, 2, 2, 2]).exp(), f64(2));
  assertThrows(() => encode(planOf(deep)), Error, 'Cannot run "map" of the graph: an operand has 7 dims, at most 6');
});

Deno.test("an attribute that a kernel needs and a node lacks is an error", () => {
  const { nodes, ...rest } = trace((x, w) => x.apply("rmsnorm", [w], { eps: 1 })[0], f64(2, 2), f64(2));
  const graph = { ...rest, nodes: nodes.map((n) => ({ ...n, attrs: {} })) };
  assertThrows(() => encode(planOf(graph)), Error, 'Cannot encode "rmsnorm": attribute "eps" is missing');
});
