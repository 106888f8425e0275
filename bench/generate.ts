/** Text generation beside transformers: `deno task bench:generate`. Both read the same folder, a random Llama of the size of
 * SmolLM2-135M that transformers makes, the same prompt, and generate greedily on as many threads; they take turns. What is printed: the
 * time until the first token, tokens per second after it, and the GB/s at which weights are then read, once for each token.
 * @module */
import { availableParallelism, cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { Device } from "../ffi/device.ts";
import { load } from "../train/checkpoint/load.ts";
import { openDecoder } from "../train/generate/decoder.ts";
import { runBench } from "./arguments.ts";
import { virtualEnvironment } from "./bench.ts";
import { median } from "./report.ts";

const usage = `deno task bench:generate [options]: text generation of this library beside transformers

  --dtype LIST       f32, bf16 or f32,bf16 (f32,bf16)
  --prompt N         tokens of the prompt (128)
  --new N            tokens to generate (64)
  --rounds N         how often each generates, taking turns, after once to warm up (5)
  --threads N        for both (all cores)
  --folder DIR       where the model is, or is made (outputs/bench/generate)
  --venv PYTHON      interpreter that has transformers (bench/.venv's, which is made when there is none)
  --python COMMAND   interpreter that makes bench/.venv (python3)
  --help             this text
`;

/** Sizes of SmolLM2-135M, in transformers' words. */
const sizes = {
  hidden_size: 576,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  intermediate_size: 1536,
  vocab_size: 49152,
  max_position_embeddings: 8192,
  tie_word_embeddings: true,
  rms_norm_eps: 1e-5,
  rope_parameters: { rope_type: "default", rope_theta: 100000 },
};
/** Parameters that are read for each token. */
const parameters = 134_515_008;

interface Generated {
  /** Until the first token. */
  readonly prefillMs: number;
  /** For the tokens after it. */
  readonly decodeMs: number;
  readonly tokens: readonly number[];
}

interface Contestant extends AsyncDisposable {
  readonly name: string;
  generate(prompt: number, count: number): Promise<Generated>;
}

/** A process that answers each line with a line of JSON. */
async function peer(name: string, command: readonly string[]): Promise<Contestant> {
  const [program, ...args] = command;
  const process = new Deno.Command(program, { args, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
  const errors = new Response(process.stderr).text();
  const input = process.stdin.getWriter(), output = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const line = async (): Promise<string> => {
    while (!text.includes("\n")) {
      const { value, done } = await output.read();
      if (done) throw new Error(`${name} has ended:\n${(await errors).split("\n").slice(-15).join("\n")}`);
      text += value;
    }
    const end = text.indexOf("\n"), first = text.slice(0, end);
    text = text.slice(end + 1);
    return first;
  };
  const { version } = JSON.parse(await line());
  return {
    name: version,
    async generate(prompt, count) {
      await input.write(new TextEncoder().encode(`${prompt} ${count}\n`));
      return JSON.parse(await line());
    },
    async [Symbol.asyncDispose]() {
      await input.close();
      await output.cancel();
      await process.status;
      await errors;
    },
  };
}

async function ours(folder: string, dtype: "f32" | "bf16", threads: number, maxLength: number): Promise<Contestant> {
  const decoder = await openDecoder(load(folder), { maxLength, dtype, threads });
  return {
    name: "ours",
    async generate(prompt, count) {
      decoder.truncate(0, 0);
      const start = performance.now(), tokens: number[] = [];
      const ids = Array.from({ length: prompt }, (_, i) => i * 7919 % decoder.vocabSize);
      let logits = await decoder.extend([ids]);
      tokens.push(likeliest(logits));
      const first = performance.now();
      while (tokens.length < count) {
        logits = await decoder.extend([tokens.slice(-1)]);
        tokens.push(likeliest(logits));
      }
      return { prefillMs: first - start, decodeMs: performance.now() - first, tokens };
    },
    [Symbol.asyncDispose]: () => Promise.resolve(decoder[Symbol.dispose]()),
  };
}

function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      dtype: { type: "string", default: "f32,bf16" },
      prompt: { type: "string", default: "128" },
      new: { type: "string", default: "64" },
      rounds: { type: "string", default: "5" },
      threads: { type: "string", default: `${availableParallelism()}` },
      folder: { type: "string", default: "outputs/bench/generate" },
      venv: { type: "string" },
      python: { type: "string", default: "python3" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(usage);
  const [prompt, count, rounds, threads] = [values.prompt, values.new, values.rounds, values.threads].map(Number);
  const python = values.venv ?? await virtualEnvironment(values.python), { folder } = values;
  const script = decodeURIComponent(new URL("transformers_generate.py", import.meta.url).pathname);
  using device = new Device({ threads });
  console.log(
    `${cpus()[0].model.trim()}, ${threads} threads, level ${device.info.level}; ${prompt} tokens, then ${count}`,
  );
  for (const dtype of values.dtype.split(",") as ("f32" | "bf16")[]) {
    const command = [python, script, "--folder", folder, "--sizes", JSON.stringify(sizes), "--dtype", dtype];
    await using theirs = await peer("transformers", [...command, "--threads", `${threads}`]);
    await using own = await ours(folder, dtype, threads, prompt + count);
    const field = [own, theirs], runs = field.map(() => [] as Generated[]);
    for (let round = 0; round <= rounds; round++) {
      for (const [i, contestant] of field.entries()) {
        const run = await contestant.generate(prompt, count);
        if (round > 0) runs[i].push(run);
      }
    }
    const rate = (run: Generated): number => (count - 1) / run.decodeMs * 1000;
    const bytes = parameters * (dtype === "f32" ? 4 : 2), [mine, other] = runs;
    console.log(`${dtype}, load ${loadavg()[0].toFixed(1)}`);
    field.forEach(({ name }, i) => {
      const perSecond = median(runs[i].map(rate)), first = median(runs[i].map((r) => r.prefillMs));
      const gigabytes = (perSecond * bytes / 1e9).toFixed(1);
      console.log(
        `  ${name.padEnd(34)} first token ${first.toFixed(0).padStart(5)} ms   ${
          perSecond.toFixed(1).padStart(6)
        } tokens/s` +
          `   ${gigabytes} GB/s of weights`,
      );
    });
    const ratio = (of: (run: Generated) => number) => median(mine.map((run, i) => of(run) / of(other[i]))).toFixed(2);
    const same = mine[0].tokens.findIndex((token, i) => token !== other[0].tokens[i]);
    console.log(
      `  ours is ${ratio(rate)} x; first token ${ratio((r) => 1 / r.prefillMs)} x; ` +
        (same < 0 ? `all ${count} tokens are the same` : `${same} tokens are the same`),
    );
  }
}

if (import.meta.main) await runBench(main);
