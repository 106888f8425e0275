/**
 * The rules of the tree: what may import what, that `tests/` mirrors it, how long a file may be, and what no file may
 * name. Each rule is a pure function from the files' texts to complaints, which say what to change.
 * @module
 */
import { dirname, join } from "@std/path";
import { kernels } from "../graph/kernels.ts";
import { ops } from "../graph/ops/mod.ts";

/** Text files by their path from the root. */
export type Tree = ReadonlyMap<string, string>;

/** A rule gives a complaint for each place that breaks it. */
export type Rule = (tree: Tree) => string[];

/** What each part of the house may import, beside itself. Parts that are absent (tests, bench, tools) may import any. */
const LAYERS: Record<string, readonly string[]> = {
  graph: [],
  model: ["graph"],
  parallel: ["graph"],
  data: [],
  ffi: [],
  launch: [],
  train: ["graph", "model", "parallel", "data", "ffi", "launch"],
  "mod.ts": ["graph", "model", "parallel", "data", "ffi", "launch", "train", "tools"],
  examples: ["mod.ts"],
  std: [],
};

/** Parts that run in a browser. */
const PURE = /^(graph|model|parallel)\//;
const MIRRORED = /^(graph|model|parallel|data|train|ffi|launch)\//;
const COUNTED = /\.(ts|py|cpp|h|cu)$/;
const [LONGEST, USUAL] = [600, 400];

/** Imports point down only, and nobody but the import map knows of `std/`. */
export function layers(tree: Tree): string[] {
  return sources(tree).flatMap(([path, text]) => {
    const part = partOf(path);
    return importsOf(text).filter((specifier) => specifier.startsWith(".")).flatMap((specifier) => {
      const target = join(dirname(path), specifier);
      const other = partOf(target);
      if (other === part) return [];
      if (other === "std") return [`${path} imports ${target}: import it by its name, "@std/..."`];
      const allowed = LAYERS[part];
      if (allowed === undefined || allowed.includes(other)) return [];
      const may = allowed.length === 0 ? "nothing of ours" : allowed.join(", ") + " alone";
      return [`${path} imports ${target}: ${part} may import ${may} (move the shared part down)`];
    });
  });
}

/** No file imports itself through others, not even for types: what two files need of each other stands below both. */
export function circles(tree: Tree): string[] {
  const imports = new Map(
    sources(tree).filter(([path]) => !path.startsWith("tests/")).map(([path, text]) =>
      [path, importsOf(text, STATIC).filter((s) => s.startsWith(".")).map((s) => join(dirname(path), s))] as const
    ),
  );
  const next = (path: string) => imports.get(path)!.find((target) => imports.has(target)), found: string[] = [];
  for (;;) {
    // What imports nothing that is left is in no circle.
    for (let free: string[]; (free = [...imports.keys()].filter((path) => next(path) === undefined)).length > 0;) {
      free.forEach((path) => imports.delete(path));
    }
    const way = [...imports.keys()].slice(0, 1);
    if (way.length === 0) return found;
    for (let target; !way.includes(target = next(way.at(-1)!)!);) way.push(target);
    const circle = way.slice(way.indexOf(next(way.at(-1)!)!));
    found.push(`${circle.join(" imports ")} imports ${circle[0]}: move what they share below both`);
    circle.forEach((path) => imports.delete(path));
  }
}

/** The graph, models and plans run in a browser: they use neither Deno's API nor Node's. */
export function browser(tree: Tree): string[] {
  return sources(tree).filter(([path]) => PURE.test(path)).flatMap(([path, text]) => {
    const used = /\bDeno\.\w+/.exec(withoutComments(text))?.[0] ?? importsOf(text).find((name) => /^node:/.test(name));
    return used === undefined ? [] : [`${path} uses ${used}: it must run in a browser (pass the value in instead)`];
  });
}

/** What trains models and spreads them over ranks names none: a model says in `model/NAME_plan.ts` what may be cut, and its family in
 * `model/NAME_family.ts` what it is called elsewhere. In `train/` examples in comments may; llama.cpp is a program. */
export function models(tree: Tree): string[] {
  const names = [...tree.keys()].flatMap((path) => /^model\/(\w+)_(?:plan|family)\.ts$/.exec(path)?.[1] ?? []);
  return sources(tree).filter(([path]) => /^(parallel|train)\//.test(path)).flatMap(([path, text]) => {
    const read = path.startsWith("train/") ? withoutComments(text) : text;
    return [...new Set(names)].filter((name) => new RegExp(`${name}(?!\\.cpp|-gguf)`, "i").test(read)).map((name) =>
      `${path} names "${name}": let model/${name}_plan.ts or model/${name}_family.ts say what it needs to know`
    );
  });
}

/** Ops are meaning, passes ask whatever target they are given: neither knows one. They name none, no kernel that is no op, and take
 * nothing from a target's files or the table of kernels; `train/compile.ts` chooses. */
export function targets(tree: Tree): string[] {
  const known = [...tree.keys()].flatMap((path) => /^graph\/target\/(\w+)\.ts$/.exec(path)?.[1] ?? [])
    .filter((name) => name !== "target");
  const ownKernels = Object.keys(kernels).filter((name) => !ops.has(name));
  const named = [new RegExp(`\\b(${known.join("|")})\\b`, "i"), new RegExp(`(["'\`])(${ownKernels.join("|")})\\1`)];
  return sources(tree).filter(([path]) => /^(graph\/(?!target\/)|model\/|parallel\/)/.test(path)).flatMap(
    ([path, text]) => {
      const taken = importsOf(text).map((specifier) => join(dirname(path), specifier)).filter((target) =>
        target === "graph/kernels.ts" || target.startsWith("graph/target/") && target !== "graph/target/target.ts"
      );
      const names = /^graph\/(passes|ops)\//.test(path) ? named.flatMap((form) => form.exec(text)?.[0] ?? []) : [];
      return [...taken.map((target) => `imports ${target}`), ...names.map((name) => `names ${name}`)].map((what) =>
        `${path} ${what}: let graph/target/target.ts say what it needs to know`
      );
    },
  );
}

/** `graph/print.ts` has `tests/graph/print_test.ts`, or its folder has one test over all its files. */
export function mirror(tree: Tree): string[] {
  return sources(tree).filter(([path, text]) => MIRRORED.test(path) && runs(text) && !isGenerated(text)).flatMap(
    ([path]) => {
      const own = `tests/${path.replace(/\.ts$/, "_test.ts")}`;
      const folder = dirname(path);
      const shared = folder.includes("/") ? [`tests/${folder}_test.ts`] : [];
      return [own, ...shared].some((test) => tree.has(test)) ? [] : [`${path} has no test: expected ${own}`];
    },
  );
}

/** No hand-written file is over 600 lines, and nine of ten are within 400. */
export function size(tree: Tree): string[] {
  const lengths = [...tree].filter(([path, text]) => COUNTED.test(path) && !isGenerated(text))
    .map(([path, text]) => ({ path, lines: text.split("\n").length - 1 }));
  const complaints = lengths.filter(({ lines }) => lines > LONGEST)
    .map(({ path, lines }) => `${path} has ${lines} lines, more than ${LONGEST}: split it by concept`);
  const long = lengths.filter(({ lines }) => lines > USUAL);
  if (long.length * 10 > lengths.length) {
    const names = long.map(({ path, lines }) => `${path} (${lines})`).join(", ");
    complaints.push(
      `${long.length} of ${lengths.length} files have more than ${USUAL} lines, at most a tenth may: ${names}`,
    );
  }
  return complaints;
}

/** No file names a folder of one machine, or the host of a package registry. */
export function names(tree: Tree): string[] {
  const path = /(?<![\w.\-\])}])\/(work|root|home\/[a-z]\w*)\//;
  const host = /\bregistry\.[a-z0-9-]+\.[a-z]{2,}\b|\bnpm\.jsr\.io\b|\b(files\.pythonhosted|deb\.debian)\.org\b/;
  return [...tree].flatMap(([file, text]) =>
    text.split("\n").flatMap((line, i) => {
      const found = path.exec(line) ?? host.exec(line);
      return found === null ? [] : [`${file}:${i + 1} names ${found[0].trim()}: keep machines and registries out`];
    })
  );
}

/** What a node or a state is, its fields say: no code tests or takes apart a scope, which is text for people, or a state's name.
 * `graph/print.ts` writes that text, `graph/ir.ts` makes those names. */
export function identity(tree: Tree): string[] {
  const method =
    "(starts|ends)With|includes|indexOf|lastIndexOf|match|matchAll|replace|replaceAll|search|slice|split|substring|at";
  const forms: readonly (readonly [by: RegExp, maker: string, instead: string])[] = [
    [new RegExp(`\\bscope\\)?\\s*[?!]?\\.\\s*(${method})\\(`), "graph/print.ts", "ask the node's phase or block"],
    [/\.(test|exec)\([^()]*\bscope\b/, "graph/print.ts", "ask the node's phase or block"],
    [/\bscope\)?\s*[!=]==?\s*["'`][^"'`]/, "graph/print.ts", "ask the node's phase or block"],
    [/["'`/^](gradient|moment\d?)\\?\//, "graph/ir.ts", "ask the state's kind, and whose it is"],
  ];
  return sources(tree).filter(([path]) => /^(graph|parallel|train)\//.test(path)).flatMap(([path, text]) =>
    withoutComments(text).split("\n").flatMap((line) => {
      const broken = forms.find(([by, maker]) => path !== maker && by.test(line));
      return broken === undefined ? [] : [`${path} reads a text for people in "${line.trim()}": ${broken[2]}`];
    })
  );
}

/** Files that may look for ops by name, with what they turn them into. */
const REWRITERS: Readonly<Record<string, string>> = {
  "graph/passes/simplify.ts": "local rules replace small patterns of ops by smaller ones",
  "graph/passes/fuse.ts": "rules replace patterns of ops by one that does them all",
  "graph/passes/float8.ts": "products become those of scaled operands, divided by their scales",
  "graph/passes/fuse_products.ts": "products that share an operand become one",
  "graph/passes/materialize.ts": "products of packed copies stand for those of views",
  "graph/passes/tile_async_tp.ts": "gathers, products and scatters become those of one rank's rows after another's",
  "graph/passes/tile_ring.ts": "attention to gathered keys becomes that to one rank's keys after another's",
  "parallel/conversion.ts": "a change of layouts becomes collectives",
  "parallel/localize.ts": "nodes over whole values become those of one rank's parts, with these collectives",
  "parallel/rank_graph.ts": "what a rank does because of where it stands becomes ordinary ops",
};

/** Files that make nodes of ops that they name, but look for none. */
const MAKERS: Readonly<Record<string, string>> = {
  "graph/builder.ts": "what touches states",
  "graph/edit.ts": "reads of states",
  "graph/tensor.ts": "what models are written in",
  "graph/passes/fuse_maps.ts": "maps",
  "graph/passes/precision.ts": "casts",
  "graph/passes/tile.ts": "slices for chunks, and what puts these together",
  "parallel/partition.ts": "reads of several states, in parts",
  "parallel/reduce_sums.ts": "reductions of sums",
  "parallel/pipeline/hold_states.ts": "sums over stages, and what stages without a summand add",
  "parallel/pipeline/transfer_graphs.ts": "exchanges between stages",
  "train/optimizer.ts": "first values and the update",
};

/** An op is known by its record: no pass looks for ops by name, but those that rewrite patterns of them. */
export function facts(tree: Tree): string[] {
  const of = (path: string) => path in REWRITERS ? "rewrite" : path in MAKERS ? "make" : "none";
  const hidden = (path: string, text: string) =>
    !/^(graph|parallel|train)\//.test(path) || path.startsWith("graph/ops/") || isGenerated(text);
  return sources(tree).filter(([path, text]) => !hidden(path, text)).flatMap(([path, text]) => {
    const code = withoutComments(text), sought = opsSoughtIn(code), made = opsMadeIn(code), role = of(path);
    if (role === "rewrite" && sought.length === 0 || role === "make" && made.length === 0) {
      return [`${path} names no op to ${role}: take it off the list in tools/check_tree.ts`];
    }
    const complain = (names: readonly string[], what: string) =>
      names.length === 0 ? [] : [`${path} ${what.replace("NAMES", names.join(", "))}`];
    return [
      ...complain(
        role === "rewrite" ? [] : sought,
        "looks for ops by name (NAMES): let a field of their records say what it needs to know (Facts in graph/op.ts)",
      ),
      ...complain(
        role === "none" ? made : [],
        "makes nodes of NAMES: do that where it is done already (the lists in tools/check_tree.ts)",
      ),
    ];
  });
}

const NAME = `(["'\`])(${[...ops.keys()].join("|")})\\1`;

/** Names of ops that nodes are compared with, or that are listed. */
function opsSoughtIn(code: string): string[] {
  const comparisons = [
    `\\bop\\)?\\s*[!=]==?\\s*${NAME}`,
    `${NAME}\\s*[!=]==?\\s*[\\w.?!]*\\bop\\b`,
    `\\bop:\\s*${NAME}`,
    `\\bmade\\([^,()]+,\\s*${NAME}`,
    ...(/\bswitch\s*\([^)]*\bop\)/.test(code) ? [`\\bcase\\s+${NAME}`] : []),
  ];
  const compared = comparisons.flatMap((form) => [...code.matchAll(new RegExp(form, "g"))].map((m) => m[2]));
  const parts = [...code.matchAll(/\bop\??\.(startsWith|endsWith|includes|match)\(/g)].map((m) => `${m[1]}(...)`);
  // A list of one is a list of ops only where it is asked what it has.
  const lists = [...code.matchAll(/(new Set(?:<\w+>)?\(\[?\s*)?\[([\s"'`\w,]+)\](\.includes\()?/g)].flatMap((m) => {
    const words = m[2].split(",").map((word) => word.trim()).filter((word) => word !== "");
    const listed = words.flatMap((word) => new RegExp(`^${NAME}$`).exec(word)?.[2] ?? []);
    return listed.length === words.length && (listed.length > 1 || m[1] || m[3]) ? listed : [];
  });
  return [...new Set([...compared, ...parts, ...lists])];
}

/** Names of ops that nodes are made of. */
function opsMadeIn(code: string): string[] {
  const forms = [
    `\\b(?:emit|apply|join|one|binary)\\(\\s*${NAME}`,
    `\\badd\\(\\s*[\\w.!]+(?:\\([^()]*\\)!?)?,\\s*${NAME}`,
  ];
  return [...new Set(forms.flatMap((form) => [...code.matchAll(new RegExp(form, "g"))].map((m) => m[2])))];
}

/** Programs are the same for every device: what lies above engines, directly in `csrc/`, uses no device's means. `device.cpp` picks the engine. */
export function engines(tree: Tree): string[] {
  const means = /#pragma omp\b|\bomp_\w+\(|\b(mmap|munmap|madvise|sched_setaffinity)\(|^#include "(cpu|cuda)\//m;
  return [...tree].filter(([path]) => /^csrc\/\w+\.(cpp|h)$/.test(path)).flatMap(([path, text]) => {
    const found = means.exec(withoutComments(text));
    if (found === null || path === "csrc/device.cpp" && found[2] !== undefined) return [];
    return [`${path} has ${found[0]}: what belongs to one device is in its engine (csrc/engine.h)`];
  });
}

/** One header deals work to threads, by OpenMP or without it: a pragma elsewhere would have one thread, in silence, in a build without. */
export function threads(tree: Tree): string[] {
  return [...tree].filter(([path]) => /^csrc\/.*\.(cpp|h)$/.test(path) && path !== "csrc/cpu/parallel.h")
    .filter(([, text]) => /#pragma omp\b|#include <omp\.h>/.test(withoutComments(text)))
    .map(([path]) => `${path} uses OpenMP: work is dealt to threads by csrc/cpu/parallel.h`);
}

/** Every rule by its name. */
export const RULES: Readonly<Record<string, Rule>> = {
  layers,
  circles,
  browser,
  models,
  targets,
  mirror,
  size,
  names,
  identity,
  facts,
  engines,
  threads,
};

/** Reads the text files of a checkout. What git does not track is somebody's own, and no part of it; without git, which an archive
 * is, those that its `.gitignore` files do not leave out, of the kinds that a source has. */
export function readTree(root: string): Tree {
  const texts = (trackedFiles(root) ?? filesUnder(root)).sort().flatMap((path): [string, string][] => {
    const bytes = Deno.readFileSync(`${root}/${path}`);
    return bytes.subarray(0, 8000).includes(0) ? [] : [[path, new TextDecoder().decode(bytes)]];
  });
  return new Map(texts);
}

function trackedFiles(root: string): string[] | undefined {
  if (!exists(`${root}/.git`)) return undefined;
  try {
    const { success, stdout } = new Deno.Command("git", { args: ["-C", root, "ls-files", "-z"] }).outputSync();
    const paths = new TextDecoder().decode(stdout).split("\0").filter((path) => path !== "");
    return success ? paths.filter((path) => exists(`${root}/${path}`)) : undefined; // one may be deleted, but not yet for git
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

const KINDS = /(^|\/)(\.gitignore|LICENSE|run)$|\.(ts|md|json|lock|py|cpp|h|cu|def|cmake|toml|sh|svg)$/;

function filesUnder(root: string): string[] {
  const visit = (folder: string, ignored: readonly RegExp[]): string[] => {
    const here = [...ignored, ...ignorePatterns(`${root}/${folder}.gitignore`)];
    return [...Deno.readDirSync(`${root}/${folder}`)].flatMap((entry) => {
      if (entry.name === ".git" || here.some((pattern) => pattern.test(entry.name))) return [];
      const path = folder + entry.name;
      if (entry.isDirectory) return visit(`${path}/`, here);
      return entry.isFile && KINDS.test(path) ? [path] : [];
    });
  };
  return visit("", []);
}

function exists(path: string): boolean {
  try {
    return Deno.lstatSync(path) !== undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Imports and re-exports as a module is read. */
const STATIC: readonly RegExp[] = [
  /^\s*(?:import|export)\b[^;"'`]*?\bfrom\s*"([^"]+)"/gm,
  /^\s*import\s*"([^"]+)"/gm,
];
/** Those, and what is imported while it runs: dynamically, or by a worker. */
const ALL: readonly RegExp[] = [
  ...STATIC,
  /\bimport\(\s*"([^"]+)"/g,
  /\bnew URL\(\s*"(\.[^"]+\.ts)",\s*import\.meta/g,
];

/** The specifiers of a module's imports, re-exports and workers. */
export function importsOf(text: string, forms: readonly RegExp[] = ALL): string[] {
  const code = withoutComments(text);
  return forms.flatMap((form) => [...code.matchAll(form)].map((match) => match[1]));
}

function sources(tree: Tree): [string, string][] {
  return [...tree].filter(([path]) => path.endsWith(".ts"));
}

function partOf(path: string): string {
  return path.split("/")[0];
}

function isGenerated(text: string): boolean {
  return /\bgenerated (by|from)\b/i.test(text.split("\n").slice(0, 3).join("\n"));
}

/** Whether a module holds more than types and re-exports. */
function runs(text: string): boolean {
  return /^(export )?(default )?(async )?(function|class|abstract class|const|let)\b/m.test(text);
}

function withoutComments(text: string): string {
  return text.replace(/^\s*\/\*[^]*?\*\//gm, "").replace(/(^|\s)\/\/.*$/gm, "");
}

/** Of a `.gitignore`: names and `*.extension`. */
function ignorePatterns(path: string): RegExp[] {
  let text = "";
  try {
    text = Deno.readTextFileSync(path);
  } catch {
    return []; // most folders have none
  }
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).map((line) => {
    const name = line.replaceAll("/", "").replaceAll(".", "\\.").replaceAll("*", ".*");
    return new RegExp(`^${name}$`);
  });
}
