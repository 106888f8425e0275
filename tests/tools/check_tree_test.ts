import { assert, assertEquals } from "@std/assert";
import { dirname } from "@std/path";
import {
  browser,
  circles,
  engines,
  facts,
  identity,
  importsOf,
  layers,
  mirror,
  models,
  names,
  readTree,
  size,
  targets,
  threads,
  type Tree,
} from "../../tools/check_tree.ts";

const tree = (files: Record<string, string>): Tree => new Map(Object.entries(files));
const lines = (count: number): string => "x\n".repeat(count);
/** What each planted line makes the rule of layers say, by file. */
const planted: [path: string, text: string, complaint: string[]][] = [
  ["graph/print.ts", 'import { a } from "./ir.ts";', []],
  ["graph/print.ts", 'import { a } from "../model/llama.ts";', ["graph may import nothing of ours"]],
  ["graph/passes/fuse.ts", 'export * from "../../ffi/library.ts";', ["graph may import nothing of ours"]],
  ["graph/print.ts", 'import {\n  a,\n} from "../data/c4.ts";', ["graph may import nothing of ours"]],
  ["model/llama.ts", 'import { a } from "../graph/tensor.ts";', []],
  ["model/llama.ts", 'import type { A } from "../parallel/plan.ts";', ["model may import graph alone"]],
  ["parallel/plan.ts", 'import { a } from "../model/llama.ts";', ["parallel may import graph alone"]],
  ["parallel/mesh.ts", 'import { a } from "../ffi/comm.ts";', ["parallel may import graph alone"]],
  ["launch/launch.ts", 'import { a } from "../ffi/comm.ts";', ["launch may import nothing of ours"]],
  ["data/loader.ts", 'new Worker(new URL("../train/worker.ts", import.meta.url));', [
    "data may import nothing of ours",
  ]],
  ["ffi/program.ts", 'import { a } from "../graph/kernels.ts";', ["ffi may import nothing of ours"]],
  ["train/compile.ts", 'import { a } from "../graph/ir.ts";\nimport "../ffi/library.ts";', []],
  ["train/config/config.ts", 'await import("../../mod.ts");', [
    "train may import graph, model, parallel, data, ffi, launch alone",
  ]],
  ["mod.ts", 'export { a } from "./train/trainer.ts";', []],
  ["mod.ts", 'import "./bench/bench.ts";', [
    "mod.ts may import graph, model, parallel, data, ffi, launch, train, tools alone",
  ]],
  ["examples/mine.ts", 'import { a } from "../graph/ir.ts";', ["examples may import mod.ts alone"]],
  ["tests/a_test.ts", 'import { a } from "../graph/ir.ts";', []],
  ["tests/a_test.ts", 'import { a } from "../std/toml/mod.ts";', ['import it by its name, "@std/..."']],
];
for (const [path, text, complaint] of planted) {
  const verdict = complaint.length === 0 ? "may hold" : "may not hold";
  Deno.test(`${path} ${verdict} ${text.replaceAll("\n", " ")}`, () => {
    assertEquals(layers(tree({ [path]: text })).map((line) => line.replace(/^.*: | \(move.*$/g, "")), complaint);
  });
}

Deno.test("imports are found in every form, but not in comments", () => {
  const text =
    'import a from "1";\nexport { b } from "2";\nimport "3";\nawait import("4");\n/** import c from "5"; */\n' +
    '// import d from "6";\nconst from = "7";\nimport e, {\n  f,\n} from "8";';
  assertEquals(importsOf(text).sort(), ["1", "2", "3", "4", "8"]);
});

Deno.test("each circle of imports is named once, also one of types; what is imported while it runs is none", () => {
  const files = {
    "graph/a.ts": 'import { b } from "./b.ts";',
    "graph/b.ts": 'import { c } from "./c.ts";\nimport { z } from "npm:z";',
    "graph/c.ts": 'export type { A } from "./a.ts";\nimport "./free.ts";',
    "graph/free.ts": "",
    "graph/leads.ts": 'import { a } from "./a.ts";',
    "train/d.ts": 'import type { E } from "./e.ts";',
    "train/e.ts": 'import { d } from "./d.ts";',
    "data/f.ts": 'new Worker(new URL("./g.ts", import.meta.url));',
    "data/g.ts": 'import { f } from "./f.ts";\n// import "./h.ts";',
    "data/h.ts": 'import "./g.ts";',
    "tests/i.ts": 'import "./i.ts";',
  };
  assertEquals(circles(tree(files)).map((line) => line.replace(/: move .*$/, "")), [
    "graph/a.ts imports graph/b.ts imports graph/c.ts imports graph/a.ts",
    "train/d.ts imports train/e.ts imports train/d.ts",
  ]);
});

Deno.test("pure parts use neither Deno's API nor Node's, comments aside", () => {
  const text = "Deno.exit(1);";
  assertEquals(browser(tree({ "graph/a.ts": text, "data/a.ts": text, "launch/launch.ts": text })), [
    "graph/a.ts uses Deno.exit: it must run in a browser (pass the value in instead)",
  ]);
  assertEquals(browser(tree({ "model/a.ts": 'import os from "node:os";' })).length, 1);
  assertEquals(browser(tree({ "parallel/a.ts": "// no Deno.exit here\n/** nor Deno.args */" })), []);
});

Deno.test("above engines nothing is a device's own, but one file may pick an engine", () => {
  const include = '#include "cpu/engine.h"\n', own = "#pragma omp parallel\n";
  assertEquals(engines(tree({ "csrc/program.cpp": include, "csrc/device.cpp": include, "csrc/cpu/team.cpp": own })), [
    'csrc/program.cpp has #include "cpu/: what belongs to one device is in its engine (csrc/engine.h)',
  ]);
  for (const line of [own, "omp_set_num_threads(2);", "void* p = mmap(nullptr, 1);", "sched_setaffinity(0, n, s);"]) {
    assertEquals(engines(tree({ "csrc/device.cpp": line })).length, 1, line);
  }
  assertEquals(engines(tree({ "csrc/program.cpp": "// no mmap( here\n" })), []);
});

Deno.test("one header alone deals work to OpenMP's threads", () => {
  const own = "#pragma omp parallel for\n";
  assertEquals(threads(tree({ "csrc/cpu/parallel.h": own, "csrc/cpu/team.cpp": "omp_set_dynamic(0);\n" })), []);
  assertEquals(threads(tree({ "csrc/cpu/ops/map.cpp": own, "csrc/tests/a_test.cpp": "#include <omp.h>\n" })), [
    "csrc/cpu/ops/map.cpp uses OpenMP: work is dealt to threads by csrc/cpu/parallel.h",
    "csrc/tests/a_test.cpp uses OpenMP: work is dealt to threads by csrc/cpu/parallel.h",
  ]);
});

Deno.test("a scope's text is tested nowhere but where it is written, and no state's name is composed or taken apart", () => {
  const lines = [
    `node.scope.endsWith("'")`,
    "scope?.replace(/x/, y)",
    "/^layers/.test(n.scope)",
    "`gradient/${name}`",
    'name.slice("moment1/".length)',
    "/^gradient\\//.test(name)",
    'if (node.scope === "layers.3") first();',
  ];
  for (const line of lines) {
    const text = `export const a = 1;\n${line}; // a comment\n`;
    assertEquals(identity(tree({ "train/a.ts": text })).length, 1, line);
    assertEquals(identity(tree({ "tests/a.ts": text, "train/b.ts": `// ${line}\n/** ${line} */\n` })), []);
  }
  const files = {
    "graph/print.ts": lines[0],
    "graph/ir.ts": lines[3],
    "parallel/a.ts": 'const { scope } = node; if (scope !== "") text(scope);',
  };
  assertEquals(identity(tree(files)), []);
});

Deno.test("no code looks for an op by name, in whatever way, outside of what rewrites patterns", () => {
  const sought = [
    'if (node.op === "cast") cast();',
    'if (op !== "cast") cast();',
    "const isCast = 'cast' === node?.op;",
    "const is = ({ op }: Node) => (op) == `cast`;",
    'switch (node.op) {\n  case "cast":\n}',
    'const source = made(x, "cast");',
    'const step = { op: "cast" };',
    'const links: ReadonlySet<string> = new Set(["cast"]);',
    'const links = new Set([\n  "cast",\n  "copy",\n]);',
    'const sums = new Set([...["cast", "copy"], ...others]);',
    'const links = ["copy", "cast"];',
    'return ["cast"].includes(node.op);',
    'return node.op.startsWith("cast");',
  ];
  for (const line of sought) {
    const complaints = facts(tree({ "graph/passes/a.ts": line })), text = complaints.join();
    assert(complaints.length > 0, line);
    assert(
      /looks for ops by name \((cast|copy|cast, copy|copy, cast|startsWith\(...\))\):/.test(text),
      `${line}: ${text}`,
    );
    assertEquals(facts(tree({ "graph/passes/fuse.ts": line })), [], line);
    assertEquals(facts(tree({ "graph/passes/tile.ts": `emit("add", []);\n${line}` })).length, complaints.length, line);
    assertEquals(facts(tree({ "graph/ops/a.ts": line, "tests/a.ts": line, "model/a.ts": line })), [], line);
  }
});

Deno.test("nodes of an op are made by name only where that is listed", () => {
  const made = ['emit("add", [a, b]);', 'x.apply(\n  "add", [y]);', 'edit.add(nodes.at(-1)!, "add", [a, b]);'];
  for (const line of made) {
    assertEquals(facts(tree({ "train/a.ts": line })).length, 1, line);
    assertEquals(facts(tree({ "parallel/partition.ts": line })), [], line);
  }
});

Deno.test("words that are names of ops elsewhere are no ops, and a listed file that names none is taken off", () => {
  const words = [
    'if (init.kind === "constant") make();',
    'switch (decay) {\n  case "sqrt":\n}',
    'const decays = z.enum(["linear", "sqrt", "cosine"]);',
    'const supported = { hidden_act: ["silu"] };',
    'Deno.permissions.querySync({ name: "read" });',
    'const call = { kernel: "copy", attrs: {} };',
    'seen.add("read");',
    'const modes = ["read", "write"];',
    'const functions = ["log", "sqrt", "cube"];',
    '// node.op === "cast"',
  ];
  for (const line of words) assertEquals(facts(tree({ "train/a.ts": line })), [], line);
  const idle = facts(tree({ "graph/passes/fuse.ts": "", "graph/tensor.ts": "" }));
  assertEquals(
    idle,
    ["graph/passes/fuse.ts names no op to rewrite", "graph/tensor.ts names no op to make"].map((what) =>
      `${what}: take it off the list in tools/check_tree.ts`
    ),
  );
});

Deno.test("train and parallel name no model that has a plan or a family, parallel not even in a comment", () => {
  const files = {
    "model/llama_plan.ts": "",
    "model/llama_family.ts": "",
    "model/gpt_family.ts": "",
    "model/other.ts": "",
    "parallel/a.ts": "// other, Llama",
    "train/b.ts": '// gpt\nconst model = new Llama(sizes), fix = "llama-gguf-split";',
    "train/c.ts": 'if (name === "gpt") open(); /* other */',
    "data/d.ts": "llama",
    "train/e.ts": '/** With `llama("debug")`. */\nconst from = "llama.cpp";',
  };
  const named = [["parallel/a.ts", "llama"], ["train/b.ts", "llama"], ["train/c.ts", "gpt"]];
  assertEquals(
    models(tree(files)),
    named.map(([path, name]) =>
      `${path} names "${name}": let model/${name}_plan.ts or model/${name}_family.ts say what it needs to know`
    ),
  );
});

Deno.test("ops and passes may ask a target, but name none and none of its kernels", () => {
  const files = {
    "graph/target/target.ts": "",
    "graph/target/cpu.ts": 'import { kernels } from "../kernels.ts"; const name = "cpu";',
    "graph/place.ts": 'import type { Target } from "./target/target.ts"; // a view for gemm and cpu',
    "graph/passes/a.ts": 'import { cpu } from "../target/cpu.ts";',
    "graph/passes/b.ts": 'edit.add(node, "gemm", [a, b]);',
    "graph/ops/c.ts": "// fast on any CPU",
    "graph/ops/d.ts": 'emit("copy"); const cpus = 1;',
    "graph/tensor.ts": 'import { mapOps } from "./kernels.ts";',
    "parallel/e.ts": 'import { products } from "../graph/target/cpu/products.ts";',
    "train/compile.ts": 'import { cpu } from "../graph/target/cpu.ts";',
  };
  assertEquals(targets(tree(files)).map((line) => line.replace(/: let .*$/, "")), [
    "graph/passes/a.ts imports graph/target/cpu.ts",
    "graph/passes/a.ts names cpu",
    'graph/passes/b.ts names "gemm"',
    "graph/ops/c.ts names CPU",
    "graph/tensor.ts imports graph/kernels.ts",
    "parallel/e.ts imports graph/target/cpu/products.ts",
  ]);
});

Deno.test("a module without a test is named; types alone, generated files and tested folders need none", () => {
  const code = "export const a = 1;\n";
  const files = {
    "graph/a.ts": code,
    "graph/b.ts": code,
    "tests/graph/b_test.ts": "",
    "graph/types.ts": "export interface A { b: number }\n",
    "graph/kernels.ts": "/** Generated from csrc/kernels.def. */\n" + code,
    "graph/ops/c.ts": code,
    "tests/graph/ops_test.ts": "",
    "train/d.ts": code,
    "tests/train_test.ts": "",
  };
  assertEquals(mirror(tree(files)), [
    "graph/a.ts has no test: expected tests/graph/a_test.ts",
    "train/d.ts has no test: expected tests/train/d_test.ts",
  ]);
});

Deno.test("a file over 600 lines is named, and so are those over 400 where more than a tenth are", () => {
  assertEquals(size(tree({ "a.ts": lines(601), ...ten(400) })), [
    "a.ts has 601 lines, more than 600: split it by concept",
  ]);
  assertEquals(size(tree({ "a.cpp": lines(401), "b.h": lines(600), ...ten(400) })), [
    "2 of 12 files have more than 400 lines, at most a tenth may: a.cpp (401), b.h (600)",
  ]);
  assertEquals(size(tree({ "a.ts": "// Generated by b.ts\n" + lines(900), "data.json": lines(900) })), []);
});

function ten(length: number): Record<string, string> {
  return Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`x${i}.ts`, lines(length)]));
}

Deno.test("folders of one machine and hosts of registries are found with their line", () => {
  const folder = ["", "root", "a.ts"].join("/");
  const host = ["registry", "example", "org"].join(".");
  assertEquals(names(tree({ "a.md": `fine\nsee ${folder}` })), [
    `a.md:2 names ${folder.slice(0, 6)}: keep machines and registries out`,
  ]);
  assertEquals(names(tree({ "deno.lock": `"https://${host}/x"` })).length, 1);
  assertEquals(names(tree({ "a.ts": ["${base}", "model", "[a]"].map((base) => base + folder).join("; ") })), []);
});

async function inFolder(files: readonly string[], fn: (root: string) => void | Promise<void>): Promise<void> {
  const root = Deno.makeTempDirSync();
  try {
    for (const path of files) {
      Deno.mkdirSync(dirname(`${root}/${path}`), { recursive: true });
      Deno.writeTextFileSync(`${root}/${path}`, "x");
    }
    await fn(root);
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
}

Deno.test("without git the tree is read without what .gitignore leaves out, and without files that are no source", async () => {
  await inFolder(["build/a.ts", "bench/.venv/a.py", "docs/a.log", "docs/a.md", "notes.txt", "a.svg"], (root) => {
    Deno.writeTextFileSync(`${root}/.gitignore`, "build/\n*.log\n");
    Deno.writeTextFileSync(`${root}/bench/.gitignore`, ".venv/\n");
    Deno.writeFileSync(`${root}/docs/b.svg`, new Uint8Array(4));
    assertEquals([...readTree(root).keys()], [".gitignore", "a.svg", "bench/.gitignore", "docs/a.md"]);
  });
});

const git = (root: string, ...args: string[]) =>
  new Deno.Command("git", { args: ["-C", root, ...args], stdout: "null", stderr: "null" }).outputSync().success;
const hasGit = (Deno.env.get("PATH") ?? "").split(":").some((folder) => {
  try {
    return Deno.statSync(`${folder}/git`).isFile;
  } catch {
    return false;
  }
});
if (!hasGit) console.error("The test of what git tracks is skipped: no git");

Deno.test({
  name: "a file that git does not track is no part of the tree, nor one that is deleted",
  ignore: !hasGit,
  fn: () =>
    inFolder(["a.ts", "b.ts", "c.txt"], (root) => {
      assertEquals([git(root, "init"), git(root, "add", "a.ts", "b.ts", "c.txt")], [true, true]);
      Deno.writeTextFileSync(`${root}/stray.ts`, "x");
      Deno.removeSync(`${root}/b.ts`);
      assertEquals([...readTree(root).keys()], ["a.ts", "c.txt"]);
    }),
});
