import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { chats } from "../../data/dataset.ts";
import { Loader } from "../../data/loader.ts";
import { arr } from "../../graph/array.ts";
import { interpret, type Memory } from "../../graph/interpret.ts";
import { numel } from "../../graph/ir.ts";
import { Llama, llama } from "../../model/llama.ts";
import { namedParameters } from "../../model/module.ts";
import { openHuggingFace, readHuggingFaceConfig } from "../../train/weights/hugging_face.ts";
import { readTensor } from "../../train/checkpoint/inspect.ts";
import { type RealType, traceMicrobatch } from "../../train/step.ts";
import { chatsFolder, goldens, templateText, tokenizerFolder } from "../data/chats.ts";
import { temporaryFolder } from "../data/fixture.ts";
import { parityFolder } from "../goldens.ts";
import { type Runner, testParity, traceLogits } from "../model/parity.ts";
import { NativeSession } from "./native.ts";
import { playedGpu } from "./gpus.ts";

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
    const model = new Llama(readHuggingFaceConfig(folder).sizes), memory: Memory = new Map();
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

/** The parameters of `tools/make_goldens.py`, with more tokens. */
function goldenStates(model: Llama): Memory {
  return new Map([...namedParameters(model)].map(([name, { shape }], p) => {
    const scale = name.includes("norm") ? 0.25 : name.includes("embeddings") ? 0.9 : 1.5 / Math.sqrt(shape.at(-1)!);
    const mean = name.includes("norm") ? 1 : 0, wave = (i: number) => Math.sin(1 + 0.7 * i + 1.3 * p + 0.011 * i * i);
    const data = Float64Array.from({ length: numel(shape) }, (_, i) => mean + scale * wave(i));
    return [name, arr(shape, data)];
  }));
}

// One takes an emulated GPU as long as all ops do.
const templates = Object.entries(goldens).slice(0, playedGpu() ? 1 : undefined);
for (const [name, golden] of templates) {
  Deno.test(`packed conversations have the loss that PyTorch gives each in a row of its own, the assistant's tokens alone: ${name}`, async () => {
    await using files = await temporaryFolder();
    for (const file of ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"]) {
      await Deno.copyFile(`${tokenizerFolder(name)}/${file}`, `${files.path}/${file}`).catch(() => {});
    }
    await Deno.writeTextFile(`${files.path}/chat_template.jinja`, templateText(name));
    const seqLen = 255, dataset = { ...chats(new URL("chats.jsonl", chatsFolder).pathname) };
    await using loader = await Loader.open({
      dataset,
      tokenizer: files.path,
      batchSize: 1,
      seqLen,
      lanes: 1,
      infinite: false,
    });
    const { model: m } = JSON.parse(await Deno.readTextFile(new URL("parity.json", parityFolder)));
    const model = llama("debug", {
      ...{
        dim: m.dim,
        numLayers: m.n_layers,
        numHeads: m.n_heads,
        numKvHeads: m.n_kv_heads,
        ffnHiddenDim: m.ffn_hidden,
      },
      ...{ vocabSize: golden.vocab_size, normEps: m.norm_eps, ropeTheta: m.rope_theta, ropeScaling: null },
    });
    const graph = traceMicrobatch(model, { batch: 1, seqLen, dtype: "f32", globalTokens: seqLen, documents: true });
    using session = await NativeSession.open([graph], { threads: 2, memory: goldenStates(model) });
    let [sum, count, rows] = [0, 0, 0];
    for (let batch; (batch = await loader.next()); rows++) {
      const { tokens, targets, positions, documents } = batch;
      await session.run("microbatch", { tokens, targets, positions, documents });
      sum += (await session.read("loss_sum")).data[0];
      count += (await session.read("token_count")).data[0];
    }
    assert(rows < golden.chats.length, `${rows} rows: nothing was packed`);
    assertEquals(count, golden.count);
    assertAlmostEquals(sum / count, golden.loss, 1e-6 * golden.loss);
  });
}
