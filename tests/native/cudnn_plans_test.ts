/** cuDNN itself takes the attention that the target `cuda` gives it, on GPUs that are not here, in no more workspace than is planned. Where
 * TITAN_CUDNN_PLANS names the program that asks it (csrc/tests/cudnn_plans.cpp).
 * @module */
import { assert, assertEquals } from "@std/assert";
import { fullPrecision } from "../../graph/passes/precision.ts";
import { cuda } from "../../graph/target/cuda.ts";
import { isByCudnn } from "../../graph/target/cuda/attention.ts";
import { num } from "../../graph/op.ts";
import { llama, type LlamaOptions } from "../../model/llama.ts";
import { compileGraphs } from "../../train/compile.ts";
import { traceMicrobatch } from "../../train/step.ts";

const program = Deno.env.get("TITAN_CUDNN_PLANS");

/** A line for the program: forward, and its gradient. */
function attentionOf(flavor: string, batch: number, seqLen: number, options: LlamaOptions = {}): string[] {
  const model = llama(flavor, { numLayers: 1, vocabSize: 64, ...options });
  const graph = traceMicrobatch(model, { batch, seqLen, dtype: "f32", globalTokens: batch * seqLen });
  const precision = { ...fullPrecision, param: "bf16" } as const;
  const { nodes } = compileGraphs([graph], { threads: 1, target: cuda, precision }).graphs[0];
  return nodes.filter((n) => n.op.startsWith("attention")).map((node, backward) => {
    const [b, t, h, k] = node.inputs[0].shape, g = node.inputs[1].shape[2];
    assert(isByCudnn(node));
    return [b, t, h, g, k, num(node.attrs.scale), backward, cuda.lowerings[node.op]!.scratch!(node, 1)].join(" ");
  });
}

/** Of whole models, of ranks that share out heads, and of a length that is no multiple of a tile. */
const lines = [
  ...attentionOf("debug", 8, 2048),
  ...attentionOf("8B", 1, 8192),
  ...attentionOf("8B", 2, 8192, { numHeads: 4, numKvHeads: 1, headDim: 128 }),
  ...attentionOf("70B", 1, 8192),
  ...attentionOf("70B", 1, 8192, { numHeads: 8, numKvHeads: 1, headDim: 128 }),
  ...attentionOf("debug", 2, 100),
  ...attentionOf("llama2/7B", 4, 4096),
];

for (const architecture of [90, 100]) {
  Deno.test({
    ignore: program === undefined,
    name:
      `cuDNN has plans for the attention of debug, 8B and 70B on sm_${architecture}, in the workspace that is planned`,
    fn: async () => {
      const args = [`csrc/tests/gpus/sm_${architecture}.json`, `${architecture}`];
      const child = new Deno.Command(program!, { args, stdin: "piped", stdout: "piped" }).spawn();
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(lines.join("\n") + "\n"));
      await writer.close();
      const { code, stdout } = await child.output(), answers = new TextDecoder().decode(stdout).trim().split("\n");
      const told = lines.map((line, i) => `${line}: ${answers[i]}`).join("\n");
      assertEquals(answers.length, lines.length, told);
      assertEquals(answers.filter((answer) => !/^\d+$/.test(answer)), [], told);
      assertEquals(code, 0, told);
      console.log(told);
    },
  });
}
