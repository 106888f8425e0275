/** What one rank does in the tests of communication: `mpirun -n N deno run -A comm_rank.ts TASK`. Prints one line of JSON at the end.
 * @module */
import { Comm } from "../../ffi/comm.ts";
import { Actions } from "../../ffi/buffer.ts";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { Program } from "../../ffi/program.ts";
import { Flag } from "../../ffi/symbols.ts";
import { type Arr, arr, roundBf16 } from "../../graph/array.ts";
import { opOf } from "../../graph/builder.ts";
import { interpret, interpretRanks, type Memory } from "../../graph/interpret.ts";
import { type Attrs, type DType, type Graph, numel, type Type } from "../../graph/ir.ts";
import { localShape } from "../../graph/layout.ts";
import { sentBytes } from "../../graph/facts.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { worldOf } from "../../launch/world.ts";
import { Mesh, type MeshOptions } from "../../parallel/mesh.ts";
import { graphOfRank } from "../../parallel/rank_graph.ts";
import { passes } from "../../train/compile.ts";
import { newArray, numbersOf, setNumbers, typedArray } from "../../train/typed_array.ts";
import { Random, randomInputs } from "../graph/random_graphs.ts";
import { scatter } from "../parallel/lockstep.ts";
import { randomPartitioned } from "../parallel/random_layouts.ts";
import { compilePlainly, errorOf, KIND } from "./native.ts";
import { at } from "../graph/origins.ts";

const MESHES: Readonly<Record<number, readonly MeshOptions[]>> = {
  2: [{ dp_shard: 2 }, { tp: 2 }],
  3: [{ tp: 3 }, { dp_shard: 3 }],
  4: [{ dp_replicate: 2, dp_shard: 2 }, { dp_shard: 2, tp: 2 }, { cp: 2, tp: 2 }, { pp: 2, cp: 2 }],
};

/** A graph of one rank as a native program. */
class Rank implements Disposable {
  readonly #compiled;
  readonly #program: Program;

  private constructor(compiled: ReturnType<typeof compilePlainly>, program: Program) {
    this.#compiled = compiled;
    this.#program = program;
  }

  static async load(device: Device, graph: Graph): Promise<Rank> {
    const compiled = compilePlainly([graph], { threads: 1 });
    return new Rank(compiled, await Program.create(device, compiled.program.bytes));
  }

  get memory() {
    return this.#program.memory;
  }

  /** Outputs, and states afterwards. */
  async run(inputs: Readonly<Record<string, Arr>>, memory: Memory, first = true): Promise<Map<string, Arr>> {
    const [section] = this.#compiled.program.sections,
      { input, output } = this.#program,
      found = new Map<string, Arr>();
    const { states } = this.#compiled.plan;
    for (const [name, { state, offset }] of states) {
      const data = newArray(state);
      setNumbers(data, state.dtype, memory.get(name)!.data);
      await this.#program.write(offset, data);
    }
    for (const { name, value, offset } of section.inputs) {
      setNumbers(typedArray(value.dtype, input.buffer, offset, numel(value.shape)), value.dtype, inputs[name].data);
    }
    await this.#program.run(new Actions([{ section: 0, flags: first ? Flag.FIRST : 0 }]));
    const read = ({ dtype, shape }: Type, buffer: ArrayBuffer, offset: number): Arr =>
      arr(shape, Float64Array.from(numbersOf(typedArray(dtype, buffer, offset, numel(shape)), dtype)));
    for (const { name, value, offset } of section.outputs) found.set(name, read(value, output.buffer, offset));
    for (const [name, { state, offset }] of states) {
      const data = newArray(state);
      await this.#program.read(offset, data);
      found.set(`state ${name}`, arr(state.shape, Float64Array.from(numbersOf(data, state.dtype))));
    }
    return found;
  }

  [Symbol.dispose](): void {
    this.#program[Symbol.dispose]();
  }
}

/** Text that tells any two lists of numbers apart. */
async function digest(values: Iterable<Arr>): Promise<string> {
  const bytes = [...values].flatMap(({ data }) => [...new Uint8Array(Float64Array.from(data).buffer)]);
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", Uint8Array.from(bytes)));
  return [...hash].map((b) => b.toString(16).padStart(2, "0")).join("");
}

/** Random graphs on random meshes, natively and interpreted: their collectives, the largest error, and a digest of all results. */
async function runGraphs(device: Device, { rank, size }: Comm["info"], seeds: number) {
  const results: Arr[] = [];
  let [collectives, worst] = [0, 0];
  for (let seed = 1; seed <= seeds; seed++) {
    const meshFor = (random: Random) => new Mesh({ dp_shard: 1, ...random.pick(MESHES[size]) }, size);
    const { whole: graph, graph: parts, mesh, layouts, random } = randomPartitioned(seed, meshFor);
    // Every other time with all passes that come before a graph is that of one rank.
    const list = passes({ ranks: { partition: () => parts, graphOfRank: (g) => g, prefetch: 1 + seed % 3 } });
    const behind = list.slice(list.findIndex((p) => p.name === "tile")).filter((p) => p.name !== "materialize");
    const lowered = seed % 2 ? parts : behind.reduce((g, p) => p.run(g), parts);
    const graphs = Array.from({ length: size }, (_, r) => graphOfRank(lowered, mesh, r));
    collectives += graphs[rank].nodes.filter((n) => opOf(n.op).together).length;
    const { inputs, memory } = randomInputs(graph, seed), first = seed % 3 > 0;
    const given = graph.inputs.map((input) =>
      [
        input.name,
        scatter(arr(input.value.shape, inputs[input.name].data), layouts.input(input), mesh, random),
      ] as const
    );
    const inputsOf = (r: number) => Object.fromEntries(given.map(([name, list]) => [name, list[r]]));
    const memories = graphs.map((): Memory => new Map());
    for (const state of graph.states) {
      scatter(memory.get(state.name)!, layouts.state(state), mesh, random).forEach((part, r) =>
        memories[r].set(state.name, part)
      );
    }
    const before: Memory = new Map(graph.states.map((s) => {
      const { data } = memories[rank].get(s.name)!;
      return [s.name, arr(localShape(s.shape, layouts.state(s), mesh.factors), Float64Array.from(data))];
    }));
    using program = await Rank.load(device, graphs[rank]);
    const actual = await program.run(inputsOf(rank), before, first);
    const again = await program.run(inputsOf(rank), before, first);
    if (await digest(actual.values()) !== await digest(again.values())) {
      throw new Error(`seed ${seed}: two runs differ`);
    }
    const expected = interpret(graph, { inputs, memory, first });
    interpretRanks(graphs, graphs.map((_, r) => ({ inputs: inputsOf(r), memory: memories[r], first })));
    const wanted = new Map([
      ...Object.entries(expected),
      ...graphs[rank].states.map((s) => [`state ${s.name}`, memories[rank].get(s.name)!] as const),
    ]);
    for (const [name, value] of wanted) {
      const error = errorOf(actual.get(name)!, value);
      worst = Math.max(worst, error);
      if (!(error <= 1e-12)) throw new Error(`seed ${seed}: ${name} of rank ${rank} is off by ${error}`);
    }
    results.push(...actual.values());
  }
  return { collectives, worst, digest: await digest(results) };
}

/** Those of some attributes that an op has. */
function known(op: string, attrs: Attrs): Attrs {
  return Object.fromEntries(Object.entries(attrs).filter(([name]) => name in opOf(op).attrs!));
}

/** How one collective is done. */
interface OneOptions {
  readonly group: readonly number[];
  readonly dim?: number;
  readonly by?: string;
  readonly split?: number;
  readonly join?: number;
}

/** A graph with one collective. */
function one(op: string, type: Type, options: OneOptions): Graph {
  return traceGraph("g", [], (builder) => {
    builder.origin = at("layers.3.attention");
    const x = new Tensor(builder, builder.input("x", type));
    return { y: x.apply(op, [], known(op, { axes: ["tp"], size: options.group.length, ...options }))[0] };
  });
}

/** Every collective in every dtype, along every dim, over groups in any order: exactly what it means. */
async function runCollectives(device: Device, { rank, size }: Comm["info"]) {
  const results: Arr[] = [], random = new Random(7);
  const group = random.shuffle(Array.from({ length: size }, (_, r) => r));
  for (const dtype of ["f32", "f64", "i32", "bf16"] as DType[]) {
    for (const shape of [[12, 5, 3], [2, 12, 700], [5, 3, 24]]) {
      for (const op of ["all_gather", "reduce_scatter", "all_reduce", "ring_shift", "all_to_all"]) {
        const dim = shape.findIndex((n) => n % 12 === 0), by = random.pick(["sum", "max"]);
        const join = random.pick([0, 1, 2].filter((d) => d !== dim));
        const graph = one(op, { dtype, shape }, { group, dim, by, split: dim, join });
        const inputs = group.map(() => ({
          x: arr(shape, Float64Array.from({ length: numel(shape) }, () => roundBf16(random.int(-60, 60)))),
        }));
        const expected = interpretRanks(group.map(() => graph), inputs.map((x) => ({ inputs: x })));
        using program = await Rank.load(device, graph);
        const actual = (await program.run(inputs[rank], new Map())).get("y")!;
        if (errorOf(actual, expected[rank].y) !== 0) throw new Error(`${op} of ${dtype} [${shape}] by ${by} is wrong`);
        results.push(actual);
      }
    }
  }
  return { digest: await digest(results) };
}

/** More tensors by one collective than meet at a time: the same bits as one by one. */
async function runGrouped(device: Device, { rank, size }: Comm["info"]) {
  const results: Arr[] = [], group = Array.from({ length: size }, (_, r) => r), count = 40;
  const shapes = Array.from({ length: count }, (_, i) => [12, 1 + 3 * i]);
  for (const dtype of ["f32", "f64", "bf16"] as DType[]) {
    for (const op of ["all_gather", "reduce_scatter", "all_reduce"]) {
      const attrs = known(op, { axes: ["dp_shard"], size, group, dim: 0, by: "sum" });
      const graphs = [true, false].map((isGrouped) =>
        traceGraph("g", [], (builder) => {
          const values = shapes.map((shape, i) => builder.input(`x${i}`, { dtype, shape }));
          const made = isGrouped
            ? builder.emit(op, values, attrs)
            : values.flatMap((value) => builder.emit(op, [value], attrs));
          return Object.fromEntries(made.map((value, i) => [`y${i}`, new Tensor(builder, value)]));
        })
      );
      const random = new Random(100 * rank + 1), round = dtype === "bf16" ? roundBf16 : Math.fround;
      const inputs = Object.fromEntries(shapes.map((shape, i) => [
        `x${i}`,
        arr(shape, Float64Array.from({ length: numel(shape) }, () => round(random.real(-1, 1)))),
      ]));
      const [grouped, single] = await Array.fromAsync(graphs, async (graph) => {
        using program = await Rank.load(device, graph);
        return [...(await program.run(inputs, new Map())).values()];
      });
      if (await digest(grouped) !== await digest(single)) throw new Error(`${op} of ${count} ${dtype} tensors differs`);
      results.push(...grouped);
    }
  }
  return { tensors: results.length, digest: await digest(results) };
}

/** An exchange in which each member sends its neighbours and those beyond tensors of several types, the smaller ones first. */
function exchanging(group: readonly number[], member: number): Graph {
  const { length: size } = group, dtypes: DType[] = ["f32", "f64", "i32", "bf16"];
  const ways = group.flatMap((_, from) => [1, size - 1, 2].map((step) => [from, (from + step) % size]))
    .filter(([from, to]) => from !== to);
  const types = ways.map((_, i): Type => ({ dtype: dtypes[i % 4], shape: i % 3 === 2 ? [100_000] : [3, 1 + i] }));
  return traceGraph("g", [], (builder) => {
    builder.origin = at("layers.3.attention");
    const sent = types.filter((_, i) => ways[i][0] === member).map((type, i) => builder.input(`x${i}`, type));
    const [from, to] = [0, 1].map((end) => ways.map((way) => way[end]));
    const attrs = { size, group, member, from, to, types: types.map(({ dtype, shape }) => ({ dtype, shape })) };
    const made = builder.emit("exchange", sent, attrs);
    return Object.fromEntries(made.map((value, i) => [`y${i}`, new Tensor(builder, value)]));
  });
}

/** Each member's graph differs, and what it is given: all of it arrives, also in a second run. */
async function runExchange(device: Device, { rank, size }: Comm["info"]) {
  const random = new Random(9), group = random.shuffle(Array.from({ length: size }, (_, r) => r));
  const graphs = Array.from({ length: size }, (_, r) => exchanging(group, group.indexOf(r)));
  const inputs = graphs.map((graph) =>
    Object.fromEntries(graph.inputs.map(({ name, value: { shape } }) => [
      name,
      arr(shape, Float64Array.from({ length: numel(shape) }, () => roundBf16(random.int(-60, 60)))),
    ]))
  );
  const expected = interpretRanks(graphs, inputs.map((x) => ({ inputs: x })))[rank];
  using program = await Rank.load(device, graphs[rank]);
  for (let run = 0; run < 2; run++) {
    const actual = await program.run(inputs[rank], new Map());
    for (const [name, value] of Object.entries(expected)) {
      if (errorOf(actual.get(name)!, value) !== 0) throw new Error(`${name} of rank ${rank} is wrong`);
    }
  }
  return { received: Object.keys(expected).length, digest: await digest(Object.values(expected)) };
}

/** What libtitan counts of collectives of every kind, each done twice, and what a plan says of them. */
async function runSent(device: Device, comm: Comm) {
  const { rank, size } = comm.info, group = Array.from({ length: size }, (_, r) => r);
  const planned: Record<string, number> = {}, type: Type = { dtype: "bf16", shape: [12, 6] };
  const cut = { group, dim: 0, by: "sum", split: 0, join: 1 };
  const ops = ["all_gather", "reduce_scatter", "all_reduce", "ring_shift", "all_to_all"];
  for (const graph of [...ops.map((op) => one(op, type, cut)), exchanging(group, rank)]) {
    planned[graph.nodes[0].op] = 2 * sentBytes(graph.nodes[0]);
    const inputs = Object.fromEntries(graph.inputs.map(({ name, value }) => [name, arr(value.shape)]));
    using program = await Rank.load(device, graph);
    for (let run = 0; run < 2; run++) await program.run(inputs, new Map());
  }
  return { planned, sent: comm.sent() };
}

/** How long an all_reduce of 400 bytes takes. */
async function runLink(device: Device, comm: Comm) {
  const group = Array.from({ length: comm.info.size }, (_, r) => r);
  using program = await Rank.load(device, one("all_reduce", { dtype: "f32", shape: [100] }, { group, by: "sum" }));
  await comm.barrier();
  const begun = performance.now();
  await program.run({ x: arr([100]) }, new Map());
  return { ms: performance.now() - begun };
}

/** Rank 1 does what it should not, behind a first run in which all is well. */
async function runWith(device: Device, comm: Comm, trouble: (run: () => Promise<unknown>) => Promise<unknown>) {
  const group = Array.from({ length: comm.info.size }, (_, r) => r);
  using program = await Rank.load(device, one("all_reduce", { dtype: "f32", shape: [100] }, { group, by: "sum" }));
  const run = () => program.run({ x: arr([100]) }, new Map());
  await run();
  await comm.barrier();
  return comm.info.rank === 1 ? await trouble(run) : await run();
}

const tasks: Readonly<Record<string, (device: Device, comm: Comm) => Promise<unknown>>> = {
  graphs: (device, comm) => runGraphs(device, comm.info, 60),
  some_graphs: (device, comm) => runGraphs(device, comm.info, 4),
  collectives: (device, comm) => runCollectives(device, comm.info),
  grouped: (device, comm) => runGrouped(device, comm.info),
  exchange: (device, comm) => runExchange(device, comm.info),
  /** Members that say differently what goes to whom. */
  mistake: async (device, { info: { rank } }) => {
    await Rank.load(device, exchanging(rank === 1 ? [1, 0] : [0, 1], rank === 1 ? 0 : rank));
  },
  gather: async (_, comm) => {
    const all = await comm.gather(Uint8Array.of(comm.info.rank, 7));
    return { all: all.map((bytes) => [...bytes]), exchange: comm.info.exchange, hostSize: comm.info.hostSize };
  },
  sleep: (device, comm) => runWith(device, comm, () => new Promise((resolve) => setTimeout(resolve, 60_000))),
  die: (device, comm) =>
    runWith(device, comm, () => {
      console.error("rank 1: the disk is full");
      Deno.exit(3);
    }),
  disagree: async (device, comm) => {
    const shape = [comm.info.rank === 1 ? 3 : 2], group = Array.from({ length: comm.info.size }, (_, r) => r);
    await Rank.load(device, one("all_reduce", { dtype: "f32", shape }, { group, by: "sum" }));
  },
  record: async (device, comm) => {
    await runWith(device, comm, (run) => run());
    return { record: comm.record() };
  },
  /** Has anybody written into the code of a library? */
  code: async () => {
    const maps = (await Deno.readTextFile("/proc/self/smaps")).split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
    const code = maps.filter((map) => / r-xp .*\.so[.\d]*\n/.test(map));
    return { libraries: code.length, written: code.filter((map) => /^Private_Dirty: +[1-9]/m.test(map)) };
  },
  /** What a run has of huge pages: 60 MB, that are shared or not. */
  pages: async (device, comm) => {
    const group = Array.from({ length: comm.info.size }, (_, r) => r), shape = [15_000_000];
    using program = await Rank.load(device, one("all_reduce", { dtype: "f32", shape }, { group, by: "sum" }));
    return program.memory;
  },
  fails: async (device, comm) =>
    await runWith(device, comm, async () => {
      await new Promise((resolve) => setTimeout(resolve, 300)); // the others wait for it by then
      comm.giveUp("the disk is full\n  fix: make room");
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    }),
  sent: runSent,
  link: runLink,
  processors: (_, comm) => Promise.resolve({ processors: comm.info.processors }),
};

const device = new Device({ kind: KIND, ordinal: KIND === "cuda" ? worldOf()?.hostRank : 0, threads: 1 });
try {
  const [task, options = "{}"] = Deno.args;
  const comm = await Comm.open(device, { startTimeoutMs: 60_000, timeoutMs: 30_000, ...JSON.parse(options) });
  try {
    const result = await tasks[task](device, comm);
    await comm.close();
    console.log(JSON.stringify({ rank: comm.info.rank, ...result as Record<string, unknown> }));
  } catch (error) {
    if (error instanceof TitanError && error.status === "COMMUNICATION") console.error(comm.record());
    throw error;
  }
} catch (error) {
  console.error(error);
  Deno.exit(1);
}
