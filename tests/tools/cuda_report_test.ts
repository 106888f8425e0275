import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  broken,
  type Compiled,
  functionName,
  LAUNCHED,
  occupancy,
  parseResources,
  parseWords,
  rowsOf,
  staleness,
  tableOf,
} from "../../tools/cuda_report.ts";

const mangled = (name: string, real: string, hash = "5030a7f7") =>
  `_ZN5titan4cuda43_GLOBAL__N__dc0811a5_10_rmsnorm_cu_${hash}${name.length}${name}I${real}EEvNS1_4NormIT_EE`;

/** As cuobjdump prints it: two kernels for two architectures. */
const RESOURCES = [["sm_80", 256], ["sm_90", 1280]].map(([arch, shared]) => `
Fatbin elf code:
================
arch = ${arch}
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function ${mangled("rmsnorm", "f")}:
  REG:40 STACK:0 SHARED:${shared} LOCAL:0 CONSTANT[2]:16 CONSTANT[0]:569 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function ${mangled("rmsnorm", "d")}:
  REG:58 STACK:16 SHARED:${shared} LOCAL:0 CONSTANT[0]:569 TEXTURE:0 SURFACE:0 SAMPLER:0
`).join("");

const kernel = (change: Partial<Compiled> = {}): Compiled => ({
  arch: "sm_90",
  name: "rmsnorm",
  real: "f32",
  registers: 32,
  stack: 0,
  shared: 1024,
  ...change,
});
const all = LAUNCHED.map(({ name }) => kernel({ name }));
const names = new Set(LAUNCHED.map(({ name }) => name));
const words = { loads: names, stores: names };

Deno.test("the compiler's report gives each kernel of each architecture its registers, local and shared memory", () => {
  const found = parseResources(RESOURCES);
  assertEquals(found.map(({ arch, name, real }) => `${arch} ${name} ${real}`), [
    "sm_80 rmsnorm f32",
    "sm_80 rmsnorm f64",
    "sm_90 rmsnorm f32",
    "sm_90 rmsnorm f64",
  ]);
  assertEquals(found[1], kernel({ arch: "sm_80", real: "f64", registers: 58, stack: 16, shared: 256 }));
  assertEquals(found[3], kernel({ real: "f64", registers: 58, stack: 16, shared: 256 }));
});

Deno.test("a function's name is read from its mangled name, even behind a hash that ends in digits", () => {
  assertEquals(functionName(mangled("add_rmsnorm", "f")), { name: "add_rmsnorm", real: "f32" });
  assertEquals(functionName(mangled("rope", "d", "12345678")), { name: "rope", real: "f64" });
  assertEquals(functionName("main"), { name: "main", real: null });
});

Deno.test("a multiprocessor holds as many warps as registers, shared memory and its slots allow", () => {
  assertEquals(occupancy(kernel(), 256), 64);
  assertEquals(occupancy(kernel({ registers: 33 }), 256), 48); // 40 each: 51 warps, of which 12 in each quarter
  assertEquals(occupancy(kernel({ registers: 255 }), 256), 8);
  assertEquals(occupancy(kernel(), 32), 32); // no more than 32 blocks
  assertEquals(occupancy(kernel({ shared: 40 * 1024 }), 256), 5 * 8);
  assertEquals(occupancy(kernel({ shared: 40 * 1024, arch: "sm_80" }), 256), 4 * 8);
});

Deno.test("a kernel that breaks a limit is named with it", () => {
  const with_ = (name: string, change: Partial<Compiled>) => all.map((k) => k.name === name ? { ...k, ...change } : k);
  assertEquals(broken(all, words), []);
  assertEquals(broken(with_("rope", { stack: 8 }), words), [
    "sm_90 rope: 8 bytes of local memory; expected: registers alone",
  ]);
  assertEquals(broken([...all, kernel({ name: "attention", shared: 50_000 })], words), [
    "sm_90 attention: 50000 bytes of shared memory; expected: at most 49152",
  ]);
  assertEquals(broken(with_("sum_pieces", { registers: 128 }), words), [
    "sm_90 sum_pieces: 8192 bytes under way; expected: at least 12495",
  ]);
  const scalar = new Set([...names].filter((name) => name !== "rope" && name !== "cross_entropy"));
  assertEquals(broken(all, { loads: names, stores: scalar }), ["rope stores no words of 16 bytes"]);
  assertThrows(() => broken(all.slice(1), words), Error, `No kernel ${LAUNCHED[0].name} for sm_90`);
});

Deno.test("16 bytes at once are told from fewer, and those of f64 do not count", () => {
  const body = (name: string, real: string, ...code: string[]) =>
    `\t\tFunction : ${mangled(name, real)}\n${code.join("\n")}\n`;
  const { loads, stores } = parseWords(
    body("rope", "f", "LDG.E.128 R4, desc[UR4][R2.64] ;", "STG.E.64 desc[UR4][R2.64], R4 ;") +
      body("softmax", "d", "LDG.E.128 R4 ;", "STG.E.128 R4 ;") + body("adamw", "f", "LDG.E.CONSTANT.128 R4 ;"),
  );
  assertEquals([[...loads], [...stores]], [["rope", "adamw"], []]);
});

Deno.test("a table of other numbers is stale, unless another nvcc made it", () => {
  const rows = rowsOf(all, "sm_90"), mark = "<!-- Made by tools/cuda_report.ts with nvcc 13.0 for sm_90. -->\n";
  const document = `before\n\n${mark}\n${tableOf(rows).replaceAll(" | ", "   | ")}\n\nbehind\n`;
  assertEquals(staleness(document, rows, "13.0"), "");
  const others = rowsOf(all.map((k) => ({ ...k, registers: 30 })), "sm_90");
  assert(staleness(document, others, "13.0").includes("--write"));
  assertEquals(staleness(document, others, "12.8"), "");
  assert(staleness("nothing", rows, "13.0").includes("no table"));
});

Deno.test("docs/cuda.md has a row for each kernel of the table", () => {
  const document = Deno.readTextFileSync("docs/cuda.md");
  for (const { kernel, moves } of LAUNCHED) {
    assert(new RegExp(`\\| \`${kernel}\` +\\| ${moves} +\\|`).test(document), kernel);
  }
});
