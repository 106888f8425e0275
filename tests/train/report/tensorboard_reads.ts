/** TensorBoard itself reads what runs leave for it: a run that was cut off behind its last checkpoint and went on.
 *
 *     deno run -A tests/train/report/tensorboard_reads.ts PYTHON
 *
 * PYTHON is one with the package `tensorboard`.
 * @module */
import { assert, assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";

const root = fromFileUrl(new URL("../../..", import.meta.url)), [python] = Deno.args;

/** Prints the scalars of a folder as JSON: tag -> [step, value]. */
const READER = `
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0}).Reload()
scalars = {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
print(json.dumps(scalars))
`;

async function run(command: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(command, { args, cwd: root, env: { NO_COLOR: "1" } })
    .output();
  const [out, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert(code === 0, `${command} ${args.join(" ")} ended with ${code}:\n${out}${errors}`);
  return out;
}

const folder = await Deno.makeTempDir();
try {
  const train = (...more: string[]) =>
    run(
      ...[Deno.execPath(), "task", "--quiet", "train", "--job.dump_folder", folder, "--metrics.log_freq", "1"] as const,
      ...["--metrics.enable_tensorboard", "--model.dim", "16", "--model.n_layers", "1", "--model.n_heads", "2"],
      ...["--model.ffn_hidden_dim", "16", "--training.local_batch_size", "2", "--training.seq_len", "16"],
      ...["--checkpoint.enable", "--checkpoint.no_last_save_model_only", "--checkpoint.interval", "2"],
      ...["--validation.local_batch_size", "2", "--validation.seq_len", "16", "--validation.steps", "1", ...more],
    );
  await train("--training.steps", "4");
  await Deno.remove(`${folder}/checkpoint/step-4`, { recursive: true }); // as if the run had ended before it was saved
  await train("--training.steps", "6");
  const [{ name }] = Deno.readDirSync(`${folder}/tb`);
  const scalars: Record<string, [number, number][]> = JSON.parse(
    await run(python, "-c", READER, `${folder}/tb/${name}`),
  );

  const expected = new Map<string, [number, number][]>();
  for (const line of (await Deno.readTextFile(`${folder}/metrics.jsonl`)).trimEnd().split("\n")) {
    const { run, end: _end, step, ...values } = JSON.parse(line);
    if (run?.from !== undefined) {
      for (const [tag, points] of expected) expected.set(tag, points.filter(([step]) => step <= run.from));
    }
    for (const [tag, value] of Object.entries(values as Record<string, number>)) {
      expected.set(tag, [...expected.get(tag) ?? [], [step, Math.fround(value)]]);
    }
  }
  assertEquals(expected.get("lr")!.map(([step]) => step), [1, 2, 3, 4, 5, 6]);
  assertEquals(Object.keys(scalars).sort(), [...expected.keys()].sort());
  for (const [tag, points] of expected) assertEquals(scalars[tag], points, tag);
  console.log(`TensorBoard reads ${expected.size} tags with the values of metrics.jsonl, those of repeated steps once`);
} finally {
  await Deno.remove(folder, { recursive: true });
}
