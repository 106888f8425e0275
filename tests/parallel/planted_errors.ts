/** Plants errors in the rules by which graphs are partitioned and cut into stages, one at a time, and sees that the tests of `parallel/` fail: a rule
 * without a test that notices is as good as no rule. Run it with `deno task test:planted`, or for some rules `deno task test:planted 2a stages`.
 * @module */
import { join } from "@std/path";
import { stageErrors } from "./pipeline/planted.ts";

/** An error: in a file, what stands there once and only once, and what is put in its place. */
export interface Planted {
  readonly rule: string;
  readonly what: string;
  readonly file: string;
  readonly before: string;
  readonly after: string;
}

const error = (file: string) => (rule: string, what: string, before: string, after: string): Planted => {
  return { rule, what, file: `parallel/${file}.ts`, before, after };
};
const partition = error("partition"),
  dimRoles = error("dim_roles"),
  strategy = error("strategy"),
  conversion = error("conversion");
const localize = error("localize"), rankGraph = error("rank_graph"), reduceSums = error("reduce_sums");

export const errors: readonly Planted[] = [
  strategy(
    "1",
    "a label that is summed away leaves no partial result",
    "replicate : partial(by)",
    "replicate : replicate",
  ),
  strategy("1", "a maximum is put together as a sum", 'split!.by?.(node.attrs) ?? "sum"', '"sum"'),
  strategy("1", "what an op must see whole is cut", "!split.whole?.includes(label) &&", ""),
  strategy(
    "1",
    "an inner label of a dim is cut",
    "all.every((d) => !d.includes(label) || leading(d) === label)",
    "true",
  ),
  strategy("1", "an operand keeps no shards", "place(term, replicate))", "replicate)"),
  partition(
    "1",
    "a dim is cut into pieces of unequal sizes",
    "% this.#pieces(same, axis) === 0;\n  }\n\n  /** Number of pieces",
    "% this.#pieces(same, axis) >= 0;\n  }\n\n  /** Number of pieces",
  ),
  partition("1", "an axis forgets the axes before it", "return [...earlier, axis].reduce(", "return [axis].reduce("),
  partition(
    "1",
    "padding where an op cannot have it",
    "padded = placement.padded && opOf(node.op).split!.padded === true;",
    "padded = placement.padded;",
  ),
  localize(
    "1",
    "what goes across slices is not exchanged",
    "if (!axes) return this.#builder.emit(node.op, operands, attrs);",
    "if (true) return this.#builder.emit(node.op, operands, attrs);",
  ),
  localize(
    "1",
    "an op that counts along a dim begins at 0 on every rank",
    "if (counted) Object.assign",
    "if (false) Object.assign",
  ),
  localize("1", "sizes in attributes stay those of the whole", "n / this.#pieces(cuts.get(label) ?? [])", "n"),
  localize(
    "1",
    "a shape in an attribute stays that of the whole",
    'if (local === "output") attrs[name] = this.#localShape(y, outputs[0]);',
    'if (local === "output") continue;',
  ),
  localize(
    "1",
    "the size along a label stays that of the whole",
    "= part(local.label, num(attrs[name]));",
    "= attrs[name];",
  ),
  localize(
    "1",
    "axes of a label are in the order of the mesh",
    "orders.find((o) => o.length === axes.length && axes.every((a) => o.includes(a))) ?? axes",
    "axes",
  ),

  partition(
    "2a",
    "the gradient of a sharded parameter is like any other value",
    "const used = this.#gradients.get(value),",
    "const used = undefined as Layout | undefined,",
  ),
  partition(
    "2a",
    "the layout of use is not followed through sums and casts",
    "if (adds || converts) node!.inputs",
    "if (false) node!.inputs",
  ),
  partition(
    "2b",
    "a parameter has no say before activations",
    "const decided = pinned ?? kept",
    "const decided = kept",
  ),
  partition(
    "2b",
    "a parameter is seen as it is stored",
    "return used && !this.#storedWork.has(node) ? placementOn(used, axis) :",
    "return false ? placementOn(used!, axis) :",
  ),
  partition("2c", "operands in shards have no say", "pinned ?? kept ?? cuts.find((c) => c);", "pinned;"),
  partition(
    "2c",
    "a cut that leaves summands is as good as one that is kept",
    "pinned ?? kept ?? cuts",
    "pinned ?? cuts",
  ),
  partition(
    "2c",
    "the last operand in shards decides",
    "const kept = cuts.find((c) =>",
    "const kept = cuts.findLast((c) =>",
  ),
  partition("2d", "nothing stays partial", "if (summands.some((p) => p)) {", "if (false) {"),
  partition(
    "2d",
    "what is resolved at once stays partial",
    "return !mixed || this.#uses.get(node.outputs[0])! <= 1;",
    "return true;",
  ),
  strategy(
    "2d",
    "an op counts as linear in all that is partial",
    "all.every((i) => !isPartial[i] || s.includes(i))",
    "s.length >= 0",
  ),
  strategy(
    "2d",
    "a whole summand counts on every rank",
    "set.includes(i) ? partial() : replicate",
    "isPartial[i] ? partial() : replicate",
  ),

  partition(
    "3",
    "a partial value of several uses stays partial",
    "if ((this.#uses.get(value) ?? 0) <= 1) return made;",
    "return made;",
  ),
  partition(
    "3",
    "a partial value of one use does not travel",
    "if ((this.#uses.get(value) ?? 0) <= 1) return made;",
    "",
  ),
  partition(
    "3",
    "a use as a result is none",
    "for (const { value } of graph.outputs) this.#uses",
    "for (const { value } of []) this.#uses",
  ),
  partition(
    "3",
    "there is no residual layout",
    "placementOn(this.layouts.residual(this.#roles.get(value)!), axis)",
    "replicate",
  ),
  partition(
    "3",
    "the residual layout is taken where it does not fit",
    "return this.#fits(value, residual, axis) ? residual : replicate;",
    "return residual;",
  ),
  dimRoles(
    "3",
    "what dims count is forgotten behind a node",
    "dims ? dims.outputs[i].map(roleOf) : none(value)",
    "none(value)",
  ),
  partition("3", "the plan's word on an activation is not heard", "if (named) {", "if (false) {"),
  partition(
    "3",
    "the sum over all operands squares summands",
    "return this.#fits(node.inputs[i], shard(0), axis) ? shard(0) : replicate;",
    "return placement;",
  ),
  partition(
    "3",
    "what is whole is summed over all operands on every rank",
    'return placement.kind === "shard" ? placement : partial();',
    "return placement;",
  ),
  rankGraph(
    "3",
    "every rank keeps the value",
    "if (pieceOf(axes, mesh.factors, coordinates) === 0) now",
    "if (true) now",
  ),
  conversion("3", "what is partial is reduced whole, then sliced", "end < 0 ? more.length : end)", "0)"),
  conversion("3", "a reduction forgets one axis", "axes: resolve(), by }", "axes: resolve().slice(1), by }"),
  localize(
    "3",
    "what is resolved is left as it was made",
    "this.#place(value, this.#convert(value, layout), layout);",
    "this.#place(value, made[i], outputs[i]);",
  ),

  partition(
    "4",
    "the gradient of a partial value is partial",
    'return of.kind === "shard" ? of : replicate;',
    "return of;",
  ),
  partition("4", "a gradient does not take its value's layout", "if (gradient) {", "if (false) {"),
  partition(
    "4",
    "a gradient sum is whole",
    "const stored = placementOn(this.layouts.state(this.#states.get(state)!), axis);",
    "const stored = replicate;",
  ),
  reduceSums(
    "4",
    "a gradient sum is reduced when it is begun",
    'if (stateUse(node) !== "reads") touchedStates(node).forEach((s) => touched.set(s, node));',
    'if (stateUse(node) !== "reads") touchedStates(node).forEach((s) => touched.has(s) || touched.set(s, node));',
  ),
  reduceSums("4", "a gradient sum is reduced after every microbatch", ", last: true }", " }"),
  reduceSums("4", "a gradient sum is not reduced", "if (axes.length === 0) continue;", "continue;"),

  localize(
    "5",
    "a conversion is made for each use",
    "if (!known.has(text)) known.set(text, make());",
    "known.set(text, make());",
  ),
  localize(
    "5",
    "conversions of different layouts are taken for one",
    "const text = layoutText(layout);",
    'const text = layout.size > 0 ? "cut" : "whole";',
  ),
  localize(
    "5",
    "what is rounded travels as it is",
    "if (!this.#rounded.has(value)) {",
    "if (1 < 2) return value;\n    if (!this.#rounded.has(value)) {",
  ),
  localize(
    "5",
    "summands are rounded before they are added",
    '|| steps.includes("reduce_scatter") || steps.includes("all_reduce")',
    "",
  ),
  localize(
    "5",
    "padding is filled with a constant",
    "return opOf(source.op).boxed || fillOf(source) === 0 || paddedAxes(to, dim).length === 0;",
    "return true;",
  ),
  localize(
    "5",
    "each rank draws the same random part",
    "Object.assign(attrs, this.#box(y, outputs[0]));",
    "attrs.whole = y.shape;",
  ),
  localize("5", "a constant is made whole, then cut", "if (source && isSlice &&", "if (!source && isSlice &&"),
  partition(
    "5",
    "a parameter is converted before casts that shrink it",
    "return used && !this.#storedWork.has(node) ?",
    "return used ?",
  ),
  partition(
    "5",
    "a parameter is converted in front of what is element-wise before the cast that shrinks it",
    "else if (dtypeBytes[y.dtype] < dtypeBytes[x.dtype]) {",
    "else {",
  ),
  partition(
    "5",
    "a parameter is gathered for the maximum that it is scaled by",
    "if (isMaximum(node) && ownOf(node).some(isBeside)) found.add(node);",
    "",
  ),
  conversion(
    "5",
    "all of a dim is gathered, however far out its cuts are shared",
    "axesOfDim(now, dim).slice(common(now, to, dim).length)",
    "axesOfDim(now, dim)",
  ),
  conversion("5", "no cut moves from dim to dim", "if (start >= 0) return", "if (start > 99) return"),
  conversion("5", "a cut moves though one further in does not", "cuts.slice(i).every((a, k) => a === next[k])", "true"),
  conversion("5", "slices come after gathers", "if (missing(now, to, dim).every(free)) slice(", "if (false) slice("),

  ...stageErrors.map(([what, file, before, after]) => error(`pipeline/${file}`)("stages", what, before, after)),
];

/** Tests that tell errors in stages apart. */
const stageTests = ["assign_stages", "cut_stages", "cut_turn", "hold_states", "rank_actions", "transfer_graphs"]
  .map((name) => `tests/parallel/pipeline/${name}_test.ts`);

/** Tests that tell rules of partition apart, quick ones first, as the first that fails ends them; those of launching and of whole runs come too late
 * to. */
const ruleTests = [
  "conversion",
  "dim_roles",
  "localize",
  "strategy",
  "rank_graph",
  "partition",
  "tile",
  "reduce_sums",
  "step",
  "float8",
]
  .map((name) => `tests/parallel/${name}_test.ts`);

async function output(command: string, args: string[], cwd = "."): Promise<{ success: boolean; text: string }> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args, cwd, env: { NO_COLOR: "1" } }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { success, text: success ? text(stdout) : text(stdout) + text(stderr) };
}

/** Of this checkout what tests of passes and meshes need, elsewhere. */
async function copyOfTree(): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "planted_" });
  const parts = [
    "deno.json",
    "deno.lock",
    "mod.ts",
    "std",
    "graph",
    "model",
    "parallel",
    "train",
    "data",
    "ffi",
    "launch",
    "examples",
    "tests",
  ];
  const { success } = await output("cp", ["-r", ...parts, folder]);
  if (!success) throw new Error(`Cannot copy ${parts.join(", ")} to ${folder}`);
  return folder;
}

/** The name of the test that fails with the error planted in the folder; `undefined` when none does. */
async function caughtBy(folder: string, { rule, file, before, after, what }: Planted): Promise<string | undefined> {
  const path = join(folder, file), text = await Deno.readTextFile(path), parts = text.split(before);
  if (parts.length !== 2) {
    throw new Error(`Cannot plant "${what}" in ${file}: expected once, found ${parts.length - 1} times: ${before}`);
  }
  await Deno.writeTextFile(path, parts.join(after));
  try {
    const { success, text } = await output(
      Deno.execPath(),
      ["test", "--no-check", "-A", "--fail-fast", ...(rule === "stages" ? stageTests : ruleTests)],
      folder,
    );
    const failed = /^(.*) \.\.\. FAILED/m.exec(text)?.[1];
    if (success || failed !== undefined) return failed;
    throw new Error(`Cannot tell whether a test notices "${what}", since none has run:\n${text}`);
  } finally {
    await Deno.writeTextFile(path, text);
  }
}

/** Plants the errors that the command line names, or all. */
async function plantAll(): Promise<void> {
  const wanted = Deno.args.length > 0 ? errors.filter(({ rule }) => Deno.args.some((a) => rule.startsWith(a))) : errors;
  const queue = wanted.values(), missed: Planted[] = [];
  // The folder as it is must pass, or every error would count as caught.
  const folders = await Promise.all(Array.from({ length: navigator.hardwareConcurrency }, copyOfTree));
  try {
    const { success, text } = await output(
      Deno.execPath(),
      ["test", "--no-check", "-A", ...ruleTests, ...stageTests],
      folders[0],
    );
    if (!success) throw new Error(`Cannot plant errors where the tests fail without any:\n${text}`);
    await Promise.all(folders.map(async (folder) => {
      for (const planted of queue) {
        const from = performance.now(), test = await caughtBy(folder, planted);
        if (test === undefined) missed.push(planted);
        const found = test === undefined ? "NOT NOTICED" : `noticed by "${test}"`;
        console.log(
          `rule ${planted.rule}: ${planted.what}: ${found} (${((performance.now() - from) / 1e3).toFixed(0)} s)`,
        );
      }
    }));
  } finally {
    await Promise.all(folders.map((folder) => Deno.remove(folder, { recursive: true })));
  }
  console.log(`${wanted.length - missed.length} of ${wanted.length} planted errors noticed`);
  if (missed.length > 0) Deno.exit(1);
}

if (import.meta.main) await plantAll();
