/** Losses of the debug model in float8 beside those in bf16: `deno run -A bench/float8_curves.ts --runs DIR`. It trains bf16 and each recipe
 * on the sample, and compares means of losses: float8 is good where its curves are no farther below the lowest and above the highest of
 * bf16's seeds than these are from each other. A run that is in DIR already is not trained again.
 * @module */
import { parseArgs } from "node:util";
import { label, sheet, TEXT, ticks } from "../tools/svg.ts";

const { values } = parseArgs({
  options: {
    runs: { type: "string" },
    svg: { type: "string" },
    steps: { type: "string", default: "300" },
    seeds: { type: "string", default: "3" },
    "recipe-seeds": { type: "string", default: "3" },
    batch: { type: "string", default: "4" },
    threads: { type: "string", default: "1" },
    parallel: { type: "string", default: "1" },
    recipes: { type: "string", default: "tensorwise,rowwise,rowwise_with_gw_hp,mxfp8" },
  },
});
if (!values.runs) throw new Error("Cannot compare\n  expected: a folder for the runs\n  fix: add --runs DIR");
const [steps, parallel] = [values.steps, values.parallel].map(Number);
const seedsOf = (name: string) => Number(values[name === "bf16" ? "seeds" : "recipe-seeds"]);
const seedsText = (name: string) => `${name}, ${seedsOf(name)} seed${seedsOf(name) === 1 ? "" : "s"}`;
/** Losses of so many steps are one point of a curve. */
const WINDOW = 50;
const points = Array.from({ length: Math.floor(steps / WINDOW) }, (_, i) => (i + 1) * WINDOW);

/** Flags of a recipe. */
function float8(recipe: string): string[] {
  const [kind, more] = recipe === "mxfp8"
    ? ["mx", ["recipe_name=mxfp8_emulated"]]
    : ["float8", ["emulate", "filter_fqns=output", `recipe_name=${recipe}`]];
  return [`--model.converters=quantize.linear.${kind}`, ...more.map((flag) => `--quantize.linear.${kind}.${flag}`)];
}

const contestants = new Map([
  ["bf16", []],
  ...values.recipes.split(",").map((recipe): [string, string[]] => [recipe, float8(recipe)]),
]);

/** Losses of a run, from its file or by training. */
async function losses(name: string, flags: readonly string[], seed: number): Promise<number[]> {
  const folder = `${values.runs}/${name}-${seed}`;
  const read = () =>
    Deno.readTextFileSync(`${folder}/metrics.jsonl`).trim().split("\n").map((line) => JSON.parse(line))
      .flatMap((event) => event["loss_metrics/global_avg_loss"] ?? []) as number[];
  try {
    const before = read();
    if (before.length === steps) return before;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  const keys = {
    "job.dump_folder": folder,
    "training.steps": steps,
    "training.local_batch_size": values.batch,
    "training.mixed_precision_param": "bfloat16",
    "metrics.log_freq": 1,
    "validation.enable": false,
    "debug.seed": seed,
    "device.threads": values.threads,
  };
  const args = Object.entries(keys).map(([key, value]) => `--${key}=${value}`);
  const command = new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", "train", ...args, ...flags],
    stdout: "null",
    stderr: "piped",
  });
  const { success, stderr } = await command.output();
  if (!success) throw new Error(`${name} with seed ${seed} failed:\n${new TextDecoder().decode(stderr)}`);
  return read();
}

const mean = (list: readonly number[]) => list.reduce((sum, x) => sum + x, 0) / list.length;
const all = [...contestants].flatMap(([name, flags]) =>
  Array.from({ length: seedsOf(name) }, (_, seed) => ({ name, flags, seed }))
);
const open = all.sort((a, b) => Number(b.name === "bf16") - Number(a.name === "bf16") || a.seed - b.seed);
const curves = new Map<string, number[][]>([...contestants.keys()].map((name) => [name, []]));
await Promise.all(Array.from({ length: parallel }, async () => {
  for (let next; (next = open.shift());) {
    const { name, flags, seed } = next, all = await losses(name, flags, seed);
    curves.get(name)![seed] = points.map((step) => mean(all.slice(step - WINDOW, step)));
    console.error(`${name}, seed ${seed}: ${curves.get(name)![seed].map((x) => x.toFixed(4)).join(" ")}`);
  }
}));

const bounds = points.map((_, i) => {
  const at = curves.get("bf16")!.map((curve) => curve[i]);
  return { low: Math.min(...at), high: Math.max(...at) };
});
const row = (cells: readonly string[]) => console.log(`| ${cells.join(" | ")} |`);
row(["mean loss of 50 steps, up to step", ...points.map(String)]);
row(["---", ...points.map(() => "---")]);
row([seedsText("bf16"), ...bounds.map(({ low, high }) => `${low.toFixed(4)} to ${high.toFixed(4)}`)]);
for (const [name, list] of recipes()) row([seedsText(name), ...meansOf(list).map((x) => x.toFixed(4))]);
const isNear = (loss: number, i: number) => {
  const { low, high } = bounds[i], spread = high - low;
  return low - spread <= loss && loss <= high + spread;
};
const isGood = recipes().every(([, list]) => list.every((curve) => curve.every(isNear)));
console.log(isGood ? "all lie within the spread of bf16's seeds" : "not all lie within the spread of bf16's seeds");
for (const [name, list] of recipes()) {
  const off = list.flatMap((curve, seed) => curve.map((x, i) => Math.abs(x - curves.get("bf16")![seed][i])));
  console.log(
    `${name}: at most ${Math.max(...off).toFixed(4)} from bf16 with the same seed, at the end ${
      Math.max(...list.map((curve, seed) => Math.abs(curve.at(-1)! - curves.get("bf16")![seed].at(-1)!))).toFixed(4)
    }`,
  );
}
if (values.svg) await Deno.writeTextFile(values.svg, picture());
if (!isGood) Deno.exitCode = 1;

/** All curves but those of bf16. */
function recipes(): [string, number[][]][] {
  return [...curves].filter(([name]) => name !== "bf16");
}

/** The mean of several curves. */
function meansOf(list: readonly number[][]): number[] {
  return points.map((_, i) => mean(list.map((curve) => curve[i])));
}

/** The range of bf16 as a band, and the mean of each recipe as a line, by how far they are from bf16's mean. */
function picture(): string {
  const [width, height, left, right, top, bottom] = [600, 330, 64, 170, 60, 280], middle = meansOf(curves.get("bf16")!);
  const fromMiddle = (list: readonly number[]) => list.map((loss, i) => loss - middle[i]);
  const band = [bounds.map(({ low }) => low), bounds.map(({ high }) => high)].map(fromMiddle);
  const lines = recipes().map(([name, list]) => ({ name, line: fromMiddle(meansOf(list)) }));
  const drawn = [...band, ...lines.map(({ line }) => line)].flat(),
    [low, high] = [Math.min(...drawn), Math.max(...drawn)];
  const x = (i: number) => left + i * (width - left - right) / (points.length - 1);
  const y = (loss: number) => top + (high - loss) * (bottom - top) / (high - low);
  const place = (loss: number, i: number) => `${x(i).toFixed(1)} ${y(loss).toFixed(1)}`;
  const [lowest, highest] = band.map((line) => line.map(place));
  const colors = ["#1f6feb", "#d1570b", "#8a63d2", "#2da44e"], quiet = "#57606a", legend = width - right + 12;
  const title = "Losses in float8, above and below the mean of bf16";
  const parts = [
    label(16, 28, title, 'font-size="17" font-weight="600"'),
    `<path d="M${highest.join("L")}L${lowest.toReversed().join("L")}Z" fill="${quiet}" fill-opacity="0.3"/>`,
    label(legend, top + 10, seedsText("bf16"), `fill="${quiet}"`),
    `<path d="M${left} ${top}V${bottom}H${width - right}" fill="none" stroke="${TEXT}"/>`,
    label((left + width - right) / 2, bottom + 38, "step", 'text-anchor="middle"'),
  ];
  for (const [i, step] of points.entries()) parts.push(label(x(i), bottom + 18, `${step}`, 'text-anchor="middle"'));
  for (const tick of ticks(low, high, 5)) {
    parts.push(label(left - 8, y(tick) + 4, tick.toFixed(2), 'text-anchor="end"'));
  }
  for (const [i, { name, line }] of lines.entries()) {
    parts.push(`<path d="M${line.map(place).join("L")}" fill="none" stroke="${colors[i]}" stroke-width="1.5"/>`);
    parts.push(label(legend, top + 32 + 22 * i, name, `fill="${colors[i]}"`));
  }
  return sheet(title, [width, height], parts);
}
