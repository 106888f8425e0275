/** A real model from its file to its chats: it continues a text, chats, is trained further on the sample, is saved as a folder for
 * `transformers`, and chats from there.
 *
 *     deno run -A tests/train/generate/real_model.ts SmolLM2-135M-Instruct.Q4_1.gguf
 *
 * @module */
import { assert, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";

const root = fromFileUrl(new URL("../../..", import.meta.url));
const QUESTION = "What is the capital of France?";

/** Runs a task of this checkout; returns what it has written. */
async function task(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", ...args],
    cwd: root,
    env: { NO_COLOR: "1" },
  }).output();
  const [out, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  console.log(out + errors);
  assert(code === 0, `deno task ${args.join(" ")} ended with ${code}`);
  return out;
}

const [model] = Deno.args.map((path) => Deno.realPathSync(path)), folder = await Deno.makeTempDir();
try {
  const greedy = ["--temperature", "0", "--max-new-tokens", "20"];
  assertStringIncludes(
    await task("generate", "--from", model, "--prompt", "The capital of France is", ...greedy),
    "Paris",
  );
  assertStringIncludes(await task("generate", "--from", model, "--chat", "--prompt", QUESTION, ...greedy), "Paris");

  const out = await task(
    ...["train", "--job.dump_folder", folder, "--checkpoint.enable", "--checkpoint.initial_load_in_hf"],
    ...["--model.flavor", "hf", "--model.hf_assets_path", model, "--checkpoint.last_save_in_hf"],
    ...["--training.steps", "20", "--training.seq_len", "128", "--training.local_batch_size", "4"],
    ...["--optimizer.lr", "5e-5", "--lr_scheduler.warmup_steps", "2", "--metrics.log_freq", "1", "--validation.enable"],
    ...["--validation.freq", "20", "--validation.steps", "4", "--validation.local_batch_size", "4"],
    ...["--validation.seq_len", "128"],
  );
  // Of the same held-out text: losses of single steps differ by more than is learned in so few.
  const losses = [...out.matchAll(/^validate step: .*? loss: +(\d+\.\d+)/gm)].map((m) => Number(m[1]));
  assert(losses.length === 2 && losses[1] < losses[0] - 0.05, `the loss of held-out text has gone so: ${losses}`);

  const tuned = `${folder}/checkpoint/step-20`;
  assertStringIncludes(await task("generate", "--from", tuned, "--chat", "--prompt", QUESTION, ...greedy), "Paris");
} finally {
  await Deno.remove(folder, { recursive: true });
}
