/** Runs a memory plan in f64 on a simulated arena: like `interpret`, but every value is read from and written to its place. A plan
 * that lets two live values overlap gives another result. One cell stands for 2 bytes; the first
 * of an element holds it.
 * @module */
import { assert, assertEquals } from "@std/assert";
import { type Arr, arr, forEachIndex, roundBf16 } from "../../../graph/array.ts";
import { opOf } from "../../../graph/builder.ts";
import { interpret } from "../../../graph/interpret.ts";
import { dtypeBytes, type Graph, type Node, numel, sizeBytes, type Value } from "../../../graph/ir.ts";
import type { MemoryPlan, SectionMemory } from "../../../graph/passes/memory.ts";
import { touchedStates } from "../../../graph/edit.ts";
import type { Base, Place } from "../../../graph/place.ts";
import { nodeText } from "../../../graph/print.ts";
import { packed, type View } from "../../../graph/view.ts";
import { assertClose, randomInputs } from "../random_graphs.ts";

/** Places of a view's elements over memory, in order, as cells of the arena. */
function cellsOf(start: number, view: View, bytes: number): number[] {
  const cells: number[] = [];
  forEachIndex(view.shape, [view.strides], ([at]) => {
    for (let part = 0; part < bytes; part += 2) cells.push((start + (view.offset + at) * bytes + part) / 2);
  });
  return cells;
}

/** What a kernel writes may lie on what it reads only element by element, and where its op says so; what it writes is apart from
 * all else that it writes, and from its scratch. Returns what breaks that, as text. */
export function collisions(plan: MemoryPlan, section: SectionMemory): string[] {
  const { graph, places } = section, faults: string[] = [];
  const cells = ({ base, view }: Place) =>
    base.kind === "input" ? [] : cellsOf(section.spotOf(base).offset, view, dtypeBytes[base.dtype]);
  const meet = (a: readonly number[], b: readonly number[]) => {
    const set = new Set(a);
    return b.some((c) => set.has(c));
  };
  for (const node of graph.nodes) {
    if (node.op === "read" || places.isView(node) || section.inPlaceAssigns.has(node)) continue;
    const where = nodeText(node), pairs = plan.target.lowerings[node.op]?.inPlace?.(node) ?? [];
    const pieces = node.op === "concat" ? places.copiedPieces(node) : [];
    const reads = node.op === "concat" ? pieces.map((p) => p.value) : node.inputs;
    const states = touchedStates(node).flatMap((name) => {
      const { state, offset } = plan.states.get(name)!;
      return cellsOf(offset, packed(state.shape), dtypeBytes[state.dtype]);
    });
    const written = node.op === "concat"
      ? pieces.map((p) => cells(p.place))
      : node.outputs.map((v) => cells(places.of.get(v)!));
    if (node.outputs.length === 0) written.push(states);
    const scratch = section.scratchOf(node);
    if (scratch) written.push(cellsOf(scratch.offset, packed([Math.ceil(scratch.bytes / 2)]), 2));
    written.forEach((cells, i) =>
      written.slice(0, i).some((w) => meet(w, cells)) && faults.push(`results meet: ${where}`)
    );
    written.forEach((to, o) =>
      reads.forEach((v, i) => {
        const from = cells(places.of.get(v)!);
        const allowed = (node.outputs.length === 0 || pairs.some(([x, y]) => x === o && y === i)) &&
          String(from) === String(to);
        if (!allowed && meet(from, to)) faults.push(`result ${o} lies on operand ${i}: ${where}`);
      })
    );
  }
  return faults;
}

/** An arena and the plan that it is laid out by. */
export class Arena {
  readonly cells: Float64Array;

  constructor(readonly plan: MemoryPlan) {
    this.cells = new Float64Array(plan.arenaBytes / 2).fill(NaN);
  }

  /** Contents of a state. */
  state(name: string): Arr {
    const { state, offset } = this.plan.states.get(name)!;
    return this.#load(offset, packed(state.shape), dtypeBytes[state.dtype]);
  }

  /** Fills a state. */
  setState(name: string, data: ArrayLike<number>): void {
    const { state, offset } = this.plan.states.get(name)!;
    this.#store(offset, packed(state.shape), dtypeBytes[state.dtype], Float64Array.from(data));
  }

  #load(start: number, view: View, bytes: number): Arr {
    const out = arr(view.shape);
    const at = start / 2 + view.offset * bytes / 2;
    forEachIndex(view.shape, [view.strides], ([i], flat) => out.data[flat] = this.cells[at + i * bytes / 2]);
    return out;
  }

  #store(start: number, view: View, bytes: number, data: Float64Array): void {
    const at = start / 2 + view.offset * bytes / 2;
    forEachIndex(view.shape, [view.strides], ([i], flat) => {
      const cell = at + i * bytes / 2;
      this.cells[cell] = bytes === 2 ? roundBf16(data[flat]) : data[flat];
      this.cells.fill(NaN, cell + 1, cell + bytes / 2);
    });
  }

  /** Runs one section and returns its outputs. */
  run(section: SectionMemory, inputs: Readonly<Record<string, ArrayLike<number>>>, first = true): Record<string, Arr> {
    const { graph, places } = section;
    const start = (base: Base): number => section.spotOf(base).offset;
    const bytesOf = (v: Value) => dtypeBytes[v.dtype];
    const load = (v: Value): Arr => {
      const { base, view } = places.of.get(v)!;
      if (base.kind !== "input") return this.#load(start(base), view, bytesOf(v));
      const data = Float64Array.from(inputs[base.names[0]]), out = arr(view.shape);
      forEachIndex(view.shape, [view.strides], ([i], flat) => out.data[flat] = data[view.offset + i]);
      return out;
    };
    const store = (v: Value, a: Arr, place: Place = places.of.get(v)!) =>
      this.#store(start(place.base), place.view, bytesOf(v), a.data);
    for (const node of graph.nodes) {
      if (node.op === "read" || places.isView(node) || section.inPlaceAssigns.has(node)) continue;
      if (node.op === "concat") {
        for (const { value, place } of places.copiedPieces(node)) store(value, load(value), place);
      } else this.#runNode(graph, node, node.inputs.map(load), store, first);
      const scratch = section.scratchOf(node);
      if (scratch) this.cells.fill(NaN, scratch.offset / 2, (scratch.offset + scratch.bytes) / 2);
    }
    return Object.fromEntries(graph.outputs.map(({ name, value }) => [name, load(value)]));
  }

  #runNode(graph: Graph, node: Node, args: Arr[], store: (v: Value, a: Arr) => void, first: boolean): void {
    const states = (node.attrs.states ?? node.attrs.into ?? []) as string[];
    const adds = !(node.attrs.begin && first);
    let at = 0;
    const put = (name: string, value: Arr, add: boolean): void => {
      const size = numel(graph.states.find((s) => s.name === name)!.shape);
      const old = add ? this.state(name).data : new Float64Array(size);
      this.setState(name, old.map((x, i) => x + value.data[at + i]));
      at += size;
    };
    if (node.op === "assign" || node.op === "accumulate") {
      states.forEach((name) => put(name, args[0], node.op === "accumulate" && adds));
      return;
    }
    const outputs = opOf(node.op).reference!(args, node.attrs, node.outputs);
    const into = node.attrs.into ? opOf(node.op).into! : -1;
    node.outputs.forEach((v, i) => {
      if (i === into) states.forEach((name) => put(name, outputs[i], adds));
      else store(v, outputs[i]);
    });
  }
}

/** Runs a plan of one graph on an arena, as a first and as a later microbatch, and compares with the interpreter. */
export function assertRuns(plan: MemoryPlan, seed: number): void {
  const [section] = plan.sections,
    { graph } = section,
    arena = new Arena(plan),
    { inputs, memory } = randomInputs(graph, seed);
  const packedInputs = Object.fromEntries(Object.entries(inputs).map(([name, { data }]) => [name, data]));
  for (const { name } of graph.states) arena.setState(name, memory.get(name)!.data);
  for (const first of [true, false]) {
    const expected = interpret(graph, { inputs, memory, first }), actual = arena.run(section, packedInputs, first);
    for (const name in expected) assertClose(actual[name], expected[name], 1e-12, `output "${name}"`);
    for (const { name } of graph.states) assertClose(arena.state(name), memory.get(name)!, 1e-12, `state "${name}"`);
  }
}

/** What every plan holds to. */
export function assertSound(plan: MemoryPlan): void {
  const { categories, arenaBytes, target: { alignment, page } } = plan;
  assertEquals(Object.values(categories).reduce((a, b) => a + b), arenaBytes);
  assertEquals(arenaBytes % page, 0);
  const stateBytes = arenaBytes - categories.transient;
  const ends = [...plan.states.values()].map(({ state, offset }) => [offset, offset + sizeBytes(state)]);
  for (const [i, [start, end]] of ends.entries()) {
    assert(end <= stateBytes && ends.every(([s, e], k) => k === i || e <= start || end <= s), "states overlap");
  }
  for (const section of plan.sections) {
    assertEquals(collisions(plan, section), []);
    for (const { offset, bytes } of section.allocations) {
      assert(offset % alignment === 0 && offset >= stateBytes && offset + bytes <= arenaBytes);
    }
  }
}
