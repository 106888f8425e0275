/** Generates what TypeScript knows of the native side, `ffi/symbols.ts` from `csrc/titan.h`, `graph/kernels.ts` from
 * `csrc/kernels.def` and `graph/element_types.ts` from `csrc/element_types.def`, the list of native sources, `ffi/native_sources.ts`, and of ops,
 * `graph/ops/mod.ts`, from the files there are, and `configs/schema.json` and `docs/config.md` from the keys in `train/config/`.
 * `deno task codegen` writes them; with `--check` it only says which are stale, and exits 1.
 * @module */
import { nativeSources } from "./build.ts";
import { configPageText, configSchemaText } from "./config_documents.ts";

const FFI_TYPES: Record<string, string> = {
  int32_t: "i32",
  uint32_t: "u32",
  int64_t: "i64",
  uint64_t: "u64",
  double: "f64",
};
const SIZES: Record<string, number> = { i32: 4, u32: 4, i64: 8, u64: 8, f64: 8, text: 1 };

/** `ffi/symbols.ts` for the text of `titan.h` and of `kernels.def`. */
export function symbolsSource(header: string, definitions: string): string {
  const version = header.match(/#define TITAN_ABI_VERSION (\d+)/);
  if (!version) throw new Error("titan.h has no TITAN_ABI_VERSION\n  expected: #define TITAN_ABI_VERSION <number>");
  return [
    "// Generated from csrc/titan.h by tools/codegen.ts. Do not edit.",
    "/** The C interface of libtitan as Deno sees it: functions, structs and constants. Offsets and sizes are bytes.",
    " * @module */",
    "",
    "/** The library must answer this to `titan_abi_version`. */",
    `export const ABI_VERSION = ${version[1]};`,
    "",
    ...enums(header),
    "/** What ranks do together: the number of each kind in `titan_comm_count`, as in kernels.def. */",
    "export const Collective = {",
    ...matches(definitions, /^COLLECTIVE\((\w+), /gm).map(([, name], kind) => `  ${name}: ${kind},`),
    "} as const;",
    "",
    "/** Where each field of a struct is; a text has `length` bytes and ends at its first zero. */",
    "export const structs = {",
    ...matches(header, /typedef struct (\w+) \{([^}]*)\} \1;/g).flatMap(([, name, body]) => struct(name, body)),
    "} as const;",
    "",
    "/** The functions, for `Deno.dlopen`. */",
    "export const symbols = {",
    ...matches(header, /\/\*\* ((?:(?!\*\/)[^])*) \*\/\n(TITAN_API|TITAN_SLOW) (\w+) (\w+)\(([^)]*)\);/g).flatMap(
      symbol,
    ),
    "} as const;",
    "",
  ].join("\n");
}

function matches(text: string, pattern: RegExp): string[][] {
  return [...text.matchAll(pattern)].map((match) => [...match]);
}

/** `TITAN_STATUS_OK = 0` of enum titan_status becomes `Status.OK`. */
function enums(header: string): string[] {
  return matches(header, /typedef enum titan_(\w+) \{([^}]*)\} titan_\1;/g).flatMap(([, name, body]) => {
    const title = name.split("_").map((word) => word[0].toUpperCase() + word.slice(1)).join("");
    const entries = matches(body, /TITAN_(\w+) = (\d+),?(?: *\/\* (.*?) \*\/)?/g);
    const prefix = commonPrefix(entries.map(([, entry]) => entry));
    return [
      `/** \`titan_${name}\` of titan.h. */`,
      `export const ${title} = {`,
      ...entries.flatMap(([, entry, value, comment]) => [
        ...(comment ? [`  /** ${comment} */`] : []),
        `  ${entry.slice(prefix.length)}: ${value},`,
      ]),
      "} as const;",
      "",
    ];
  });
}

/** What all names start with, up to and with an underscore. */
function commonPrefix(names: string[]): string {
  let length = names[0].lastIndexOf("_") + 1;
  while (!names.every((name) => name.startsWith(names[0].slice(0, length)))) {
    length = names[0].lastIndexOf("_", length - 2) + 1;
  }
  return names[0].slice(0, length);
}

function struct(name: string, body: string): string[] {
  const lines: string[] = [];
  let end = 0, alignment = 1;
  for (const [, ctype, field, count] of matches(body, /(\w+) (\w+)(?:\[(\d+)\])?;/g)) {
    const type = ctype === "char" ? "text" : ffiType(ctype);
    const size = SIZES[type];
    const offset = Math.ceil(end / size) * size;
    end = offset + size * Number(count ?? 1);
    alignment = Math.max(alignment, size);
    lines.push(`      ${field}: { offset: ${offset}, type: "${type}", length: ${count ?? 1} },`);
  }
  const bytes = Math.ceil(end / alignment) * alignment;
  return [`  ${name}: {`, `    bytes: ${bytes},`, "    fields: {", ...lines, "    },", "  },"];
}

function symbol([, doc, kind, result, name, parameters]: string[]): string[] {
  const list = parameters === "void"
    ? []
    : parameters.split(",").map((parameter) => parameter.trim().replace(/\s+/g, " "));
  return [
    `  /** ${doc.replace(/\s+/g, " ")} */`,
    `  ${name}: {`,
    ...(list.length === 0 ? ["    parameters: [],"] : [
      "    parameters: [",
      ...list.map((parameter) => {
        const type = parameter.includes("*") ? "buffer" : ffiType(parameter.split(" ")[0]);
        return `      "${type}", // ${parameter}`;
      }),
      "    ],",
    ]),
    `    result: "${ffiType(result)}",`,
    ...(kind === "TITAN_SLOW" ? ["    nonblocking: true,"] : []),
    "  },",
  ];
}

function ffiType(ctype: string): string {
  const type = FFI_TYPES[ctype];
  if (!type) {
    throw new Error(
      `titan.h uses the type ${ctype}\n  expected: one of ${Object.keys(FFI_TYPES).join(", ")}, or a pointer`,
    );
  }
  return type;
}

/** `graph/kernels.ts` for the text of `kernels.def`. */
export function kernelsSource(definitions: string): string {
  const all = matches(definitions, /^(KERNEL|COLLECTIVE)\((\w+), "([^"]*)", "([^"]*)", "([^"]*)"\)$/gm);
  const of = (kind: string) => all.filter(([, own]) => own === kind);
  const kernels = [...of("KERNEL"), ...of("COLLECTIVE")];
  const maps = matches(definitions, /^MAP\((\w+), (\d+)\)$/gm);
  return [
    "// Generated from csrc/kernels.def by tools/codegen.ts. Do not edit.",
    "/** The native kernels and the element-wise operations of `map`, with their numbers in a program.",
    " * @module */",
    "",
    'import type { DType } from "./element_types.ts";',
    "",
    "/** A tensor that a kernel takes or makes. */",
    "export interface KernelOperand {",
    "  /** As in kernels.def. */",
    "  readonly name: string;",
    "  /** Stands for any number of tensors. */",
    "  readonly variadic: boolean;",
    "  /** May be absent, or (variadic) have no members. */",
    "  readonly optional: boolean;",
    "  /** May be stored as bf16 where the call's reals are f32. */",
    "  readonly bf16: boolean;",
    "  /** May it be stored as float8, too? */",
    "  readonly float8: boolean;",
    "}",
    "",
    "/** A kernel. The operands of a call are its inputs, its outputs, then the scratch. */",
    "export interface Kernel {",
    "  /** Its number in programs. */",
    "  readonly index: number;",
    "  /** Whether ranks do it together, on the comm stream. */",
    "  readonly collective: boolean;",
    "  /** Tensors that it reads. */",
    "  readonly inputs: readonly KernelOperand[];",
    "  /** Tensors that it writes. */",
    "  readonly outputs: readonly KernelOperand[];",
    "  /** Whether it needs memory of its own for the time of the call. */",
    "  readonly scratch: boolean;",
    "  /** Constants of a call, in the order in which a program has them. */",
    '  readonly attributes: readonly { readonly name: string; readonly type: "i64" | "f64" | "i64[]" | "f64[]" }[];',
    "  /** What its real operands may be; one dtype in a call. */",
    "  readonly dtypes: readonly DType[];",
    "}",
    "",
    "/** Name of a kernel. */",
    ...union("KernelName", kernels.map(([, , name]) => name)),
    "",
    "/** All kernels. */",
    "export const kernels: { readonly [K in KernelName]: Kernel } = {",
    ...kernels.flatMap(([, kind, name, operands, attributes, dtypes], index) => {
      const [inputs, outputs] = operands.split("->").map((side) => side.trim().split(" ").filter((word) => word));
      return [
        `  ${name}: {`,
        `    index: ${index},`,
        `    collective: ${kind === "COLLECTIVE"},`,
        ...array("inputs", inputs.map(operand)),
        ...array("outputs", outputs.filter((word) => word !== "scratch").map(operand)),
        `    scratch: ${outputs.includes("scratch")},`,
        ...array("attributes", attributes.split(" ").filter((word) => word).map(attribute)),
        `    dtypes: [${dtypes.split(" ").map((dtype) => `"${dtype}"`).join(", ")}],`,
        "  },",
      ];
    }),
    "};",
    "",
    "/** Name of an element-wise operation. */",
    ...union("MapName", maps.map(([, name]) => name)),
    "",
    "/** The element-wise operations: number in the code of `map`, and how many registers each reads. */",
    "export const mapOps: { readonly [K in MapName]: { readonly code: number; readonly arity: number } } = {",
    ...maps.map(([, name, arity], code) => `  ${name}: { code: ${code}, arity: ${arity} },`),
    "};",
    "",
  ].join("\n");
}

/** `graph/element_types.ts` for the text of `element_types.def`, and of `kernels.def`, which says what kernels take. */
export function elementTypesSource(table: string, definitions: string): string {
  const types = matches(table, /^ELEMENT_TYPE\((\w+), (\d+), (\w+)\)$/gm).map(([, name, bits, kind]) => ({
    name,
    bits,
    kind,
  }));
  const taken = new Set(
    matches(definitions, /^(?:KERNEL|COLLECTIVE)\(.*"([^"]*)"\)$/gm).flatMap(([, dtypes]) => dtypes.split(" ")),
  );
  const unknown = [...taken].find((name) => !types.some((type) => type.name === name));
  if (unknown) {
    throw new Error(
      `kernels.def has a kernel of ${unknown}\n  expected: types of element_types.def, ${
        types.map((t) => t.name).join(", ")
      }`,
    );
  }
  const dtypes = types.filter(({ name }) => taken.has(name)).map(({ name }) => name);
  return [
    "// Generated from csrc/element_types.def by tools/codegen.ts. Do not edit.",
    "/** How elements lie in memory: the types that programs have, and those of them that kernels take.",
    " * @module */",
    "",
    "/** A type that tensors of a program may have. */",
    ...union("ElementType", types.map(({ name }) => name)),
    "",
    "/** What kernels compute in, what is only a way to store, or scratch. */",
    ...union("ElementKind", [...new Set(types.map(({ kind }) => kind))]),
    "",
    "/** The types: number in a program, size and kind. */",
    "export const elementTypes: {",
    "  readonly [T in ElementType]: { readonly number: number; readonly bits: number; readonly kind: ElementKind };",
    "} = {",
    ...types.map(({ name, bits, kind }, number) => `  ${name}: { number: ${number}, bits: ${bits}, kind: "${kind}" },`),
    "};",
    "",
    "/** A type that some kernel takes, as values of graphs have it. */",
    ...union("DType", dtypes),
    "",
    "/** All of these. */",
    `export const dtypes: readonly DType[] = [${dtypes.map((name) => `"${name}"`).join(", ")}];`,
    "",
  ].join("\n");
}

function union(type: string, names: string[]): string[] {
  return [`export type ${type} =`, ...names.map((name, i) => `  | "${name}"${i === names.length - 1 ? ";" : ""}`)];
}

function array(name: string, entries: string[]): string[] {
  if (entries.length === 0) return [`    ${name}: [],`];
  return [`    ${name}: [`, ...entries.map((entry) => `      ${entry},`), "    ],"];
}

function operand(word: string): string {
  const [, name, stored, many, optional] = word.match(/^(\w+)([~^]?)(\*?)(\??)$/)!;
  const facts = [`variadic: ${many !== ""}`, `optional: ${optional !== ""}`];
  return `{ name: "${name}", ${facts.join(", ")}, bf16: ${stored !== ""}, float8: ${stored === "^"} }`;
}

function attribute(word: string): string {
  const [name, type] = word.split(":");
  return `{ name: "${name}", type: "${type}" }`;
}

/** `graph/ops/mod.ts` for the names of the files beside it: a new op is one new file. */
export function opsSource(files: readonly string[]): string {
  const modules = files.filter((f) => /^\w+\.ts$/.test(f) && f !== "mod.ts").sort(); // none of an editor's
  const camel = (file: string) => file.replace(/\.ts$/, "").replace(/_([a-z])/g, (_, c) => c.toUpperCase());
  return [
    "// Generated from the files of this folder by tools/codegen.ts. Do not edit.",
    "/** Every op: whatever the files of this folder export.",
    " * @module */",
    'import type { Op } from "../op.ts";',
    ...modules.map((file) => `import * as ${camel(file)} from "./${file}";`),
    "",
    "const files: readonly Record<string, unknown>[] = [",
    ...modules.map((file) => `  ${camel(file)},`),
    "];",
    "",
    'const isOp = (x: unknown): x is Op => typeof x === "object" && x !== null && "name" in x;',
    "",
    "/** The ops by name. */",
    "export const ops: ReadonlyMap<string, Op> = new Map(",
    "  files.flatMap((file) => Object.values(file).flat()).filter(isOp).map((op) => [op.name, op]),",
    ");",
    "",
  ].join("\n");
}

/** `ffi/native_sources.ts`, of the files of `csrc/` and its CMakeLists.txt. */
export function nativeSourcesSource(paths: readonly string[], cmake: string): string {
  const version = /^project\(titan VERSION (\S+)/m.exec(cmake)![1];
  return [
    "// Generated from the files of csrc/ by tools/codegen.ts. Do not edit.",
    "/** What the native library is built from, for who has the package from a server, which lists no folder. @module */",
    "",
    "/** Version of the library, and of the package. */",
    `export const VERSION = "${version}";`,
    "",
    "/** Paths in the package. */",
    "export const NATIVE_SOURCES: readonly string[] = [",
    ...paths.map((path) => `  "${path}",`),
    "];",
    "",
  ].join("\n");
}

/** The generated files: path from the repository's root, and text. */
export async function generated(root: URL): Promise<{ path: string; text: string }[]> {
  const [header, definitions, types] = await Promise.all(
    ["csrc/titan.h", "csrc/kernels.def", "csrc/element_types.def"].map((path) =>
      Deno.readTextFile(new URL(path, root))
    ),
  );
  return [
    { path: "ffi/symbols.ts", text: symbolsSource(header, definitions) },
    { path: "graph/kernels.ts", text: kernelsSource(definitions) },
    { path: "graph/element_types.ts", text: elementTypesSource(types, definitions) },
    {
      path: "graph/ops/mod.ts",
      text: opsSource((await Array.fromAsync(Deno.readDir(new URL("graph/ops/", root)))).map((f) => f.name)),
    },
    {
      path: "ffi/native_sources.ts",
      text: nativeSourcesSource(
        nativeSources(new URL("csrc", root).pathname).map((path) => path.slice(root.pathname.length)),
        await Deno.readTextFile(new URL("csrc/CMakeLists.txt", root)),
      ),
    },
    { path: "configs/schema.json", text: configSchemaText() },
    { path: "docs/config.md", text: configPageText() },
  ];
}

if (import.meta.main) {
  const root = new URL("../", import.meta.url);
  const check = Deno.args.includes("--check");
  for (const { path, text } of await generated(root)) {
    const file = new URL(path, root);
    if (!check) {
      await Deno.writeTextFile(file, text);
    } else if (await Deno.readTextFile(file) !== text) {
      console.error(
        `${path} is stale\n  expected: what tools/codegen.ts makes\n  fix: npx -y deno task codegen`,
      );
      Deno.exitCode = 1;
    }
  }
}
