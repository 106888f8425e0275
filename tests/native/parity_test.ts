import { assert } from "@std/assert";
import { arr } from "../../graph/array.ts";
import { interpret, type Memory } from "../../graph/interpret.ts";
import { Llama } from "../../model/llama.ts";
import { namedParameters } from "../../model/module.ts";
import { openHuggingFace, readHuggingFaceConfig } from "../../train/weights/hugging_face.ts";
import { readTensor } from "../../train/checkpoint/inspect.ts";
import { type RealType, traceMicrobatch } from "../../train/step.ts";
import { type Runner, testParity, traceLogits } from "../model/parity.ts";
import { NativeSession } from "./native.ts";

function runner(dtype: RealType, tolerance: number, trainedTolerance: number): Runner {
  return {
    name: `the native library in ${dtype}`,
    dtype,
    tolerance,
    trainedTolerance,
    async open(graphs, states) {
      const shapes = new Map(graphs.flatMap((graph) => graph.states.map((s) => [s.name, s.shape])));
      const memory = new Map([...states].map(([name, data]) => [name, arr(shapes.get(name)!, data)]));
      const session = await NativeSession.open(graphs, { threads: 2, memory });
      return {
        run: async (graph, inputs) => {
          const outputs = await session.run(graph, inputs);
          return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data]));
        },
        read: async (state) => (await session.read(state)).data,
        close: () => session[Symbol.dispose](),
      };
    },
  };
}

for (const name of ["plain", "grouped", "tied", "scaled", "head_dim", "odd"]) {
  Deno.test(`the native library in f32 gives the logits of transformers, and the interpreter's gradients: ${name}`, async () => {
    const folder = new URL(`../goldens/hf/${name}`, import.meta.url).pathname, checkpoint = openHuggingFace(folder);
    const model = new Llama(readHuggingFaceConfig(folder)), memory: Memory = new Map();
    for (const [name, { shape }] of namedParameters(model)) {
      memory.set(name, arr(shape, [...await readTensor(checkpoint, name)]));
    }
    const { tokens, logits } = JSON.parse(await Deno.readTextFile(`${folder}/logits.json`)), seqLen = tokens.length;
    const positions = tokens.map((_: number, i: number) => i), targets = [...tokens.slice(1), -100];
    const microbatch = (dtype: RealType) => traceMicrobatch(model, { batch: 1, seqLen, dtype, globalTokens: seqLen });
    using session = await NativeSession.open(
      [traceLogits(model, { batch: 1, seqLen, dtype: "f32" }), microbatch("f32")],
      { threads: 2, memory },
    );
    const ours = (await session.run("logits", { tokens, positions })).logits.data;
    const off = Math.max(...logits.flat().map((x: number, i: number) => Math.abs(x - ours[i])));
    assert(off < 1e-5, `logits are off by ${off}`);
    await session.run("microbatch", { tokens, positions, targets });
    interpret(microbatch("f64"), { inputs: { tokens, positions, targets }, memory });
    for (const name of namedParameters(model).keys()) {
      const [native, exact] = [(await session.read(`gradient/${name}`)).data, memory.get(`gradient/${name}`)!.data];
      const size = Math.max(...exact.map(Math.abs)), error = Math.max(...exact.map((x, i) => Math.abs(x - native[i])));
      assert(size > 0 && error < 1e-5 * size, `${name} is off by ${error} of ${size}`);
    }
  });
}

testParity(runner("f64", 1e-10, 1e-10));
testParity(runner("f32", 1e-5, 3e-4));
