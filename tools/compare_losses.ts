/**
 * Trains the default configuration with products of bf16 and of f32, and with two more seeds in f32, and compares the loss
 * curves: `compare_losses.ts [--steps 300] [KEYS...]` ends with 1 unless bf16 stays closer to its twin in f32 than seeds
 * stay to each other. Further arguments go to every run.
 * @module
 */
import { parseJsonLines } from "../train/report/json_lines.ts";
import { losses } from "./check_loss.ts";

/** Means of windows of so many steps, the last one maybe shorter. */
export function windows(curve: readonly number[], size: number): number[] {
  return Array.from({ length: Math.ceil(curve.length / size) }, (_, i) => {
    const part = curve.slice(i * size, (i + 1) * size);
    return part.reduce((a, b) => a + b, 0) / part.length;
  });
}

/** Distance of two curves beside the spread of several, window by window. */
export interface Comparison {
  readonly distance: readonly number[];
  readonly spread: readonly number[];
}

/** Compares a curve with the first of others, and those with each other. */
export function compare(curve: readonly number[], others: readonly (readonly number[])[], size: number): Comparison {
  const means = others.map((o) => windows(o, size));
  return {
    distance: windows(curve, size).map((x, i) => Math.abs(x - means[0][i])),
    spread: means[0].map((_, i) => Math.max(...means.map((m) => m[i])) - Math.min(...means.map((m) => m[i]))),
  };
}

async function train(name: string, args: readonly string[]): Promise<number[]> {
  const folder = `build/compare_losses/${name}`;
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  const command = ["task", "--quiet", "train", "--job.dump_folder", folder, "--metrics.log_freq", "1"];
  const all = [...command, "--validation.no_enable", ...args];
  const { code, stderr } = await new Deno.Command(Deno.execPath(), { args: all, stdout: "null" }).output();
  if (code !== 0) throw new Error(`run "${name}" failed: ${new TextDecoder().decode(stderr)}`);
  const path = `${folder}/metrics.jsonl`;
  return losses(parseJsonLines(await Deno.readTextFile(path), path));
}

if (import.meta.main) {
  const at = Deno.args.indexOf("--steps"), steps = at < 0 ? "300" : Deno.args[at + 1];
  const rest = at < 0 ? Deno.args : Deno.args.toSpliced(at, 2);
  const run = (param: string, seed: number) =>
    train(`${param}_${seed}`, [
      "--training.steps",
      steps,
      "--training.mixed_precision_param",
      param,
      "--debug.seed",
      `${seed}`,
      ...rest,
    ]);
  const bf16 = await run("bfloat16", 0), f32: number[][] = [];
  for (const seed of [0, 1, 2]) f32.push(await run("float32", seed));
  const size = 10, { distance, spread } = compare(bf16, f32, size);
  console.log("steps       bf16 loss  f32 loss  distance  spread of three seeds");
  distance.forEach((d, i) => {
    const [a, b] = [bf16, f32[0]].map((c) => windows(c, size)[i].toFixed(4));
    const name = `${i * size + 1}-${Math.min((i + 1) * size, bf16.length)}`;
    console.log(
      `${name.padEnd(11)} ${a.padStart(9)} ${b.padStart(9)} ${d.toFixed(4).padStart(9)} ${
        spread[i].toFixed(4).padStart(22)
      }`,
    );
  });
  const outside = distance.filter((d, i) => d > spread[i]).length;
  console.log(`${distance.length - outside} of ${distance.length} windows of ${size} steps within the spread`);
  if (outside > 0) Deno.exit(1);
}
