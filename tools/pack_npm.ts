/** Makes the package for npm: `deno task pack [FOLDER]` leaves a tarball in `build/`, or in the folder that is named. What `deno pack` makes of
 * the package gets what it does not see: workers, the packages of `std/`, what Node runs in place of `mod.ts`, and the version of Deno that
 * runs it. What the command line says of itself is said in the words of npm's users.
 * @module */
import { dirname, fromFileUrl, join, relative } from "@std/path";

const root = fromFileUrl(new URL("../", import.meta.url));

/** Modules that nothing imports by name. */
const WORKERS = ["data/prefetch_worker.ts"];
/** What Node runs: `launch/node.ts`, compiled. */
const NODE = "launch/node.ts";

/** What stands in texts for who has a checkout, and what does in the package. */
const WORDS: readonly (readonly [RegExp, string])[] = [
  [/(npx -y )?deno task (download|tokenizer)\b/g, "npx titan data $2"],
  [/(npx -y )?deno task build\b/g, "npx titan setup --again"],
  [/(npx -y )?deno task (?=[\w$])/g, "npx titan "],
  [/(npx -y )?deno run -A (\.\.\.\/)?mod\.ts\b/g, "npx titan"],
];

/** The text of a compiled module as the package has it: modules end with `.js`, also where a worker or a program is named by its address.
 * @param path of its source, from the root. @param modules sources of all modules of the package. */
export function packedText(text: string, path: string, modules: ReadonlySet<string>): string {
  const named = text.replace(/(["'])([^"'\n]+)\1/g, (whole, quote, name: string) => {
    const own = /^@std\/(\w+)$/.exec(name);
    if (own) {
      const to = relative(dirname(path), `std/${own[1]}/mod.js`);
      return `${quote}${to.startsWith(".") ? to : `./${to}`}${quote}`;
    }
    const place = name.startsWith(".") ? join(dirname(path), name) : name;
    return modules.has(place) ? `${quote}${name.replace(/ts$/, "js")}${quote}` : whole;
  });
  return WORDS.reduce((all, [words, other]) => all.replace(words, other), named);
}

/** What npm is told of a package. */
export interface PackageJson {
  /** Of packages, by their name. */
  readonly dependencies: Record<string, string>;
  readonly [field: string]: unknown;
}

/** What npm is told of this package. @param deno the version that runs it. */
export function packageJson(
  config: { name: string; version: string; imports: Record<string, string> },
  deno: string,
  used: readonly string[],
): PackageJson {
  const versions = Object.fromEntries(
    Object.values(config.imports).flatMap((from) => {
      const [, name, version] = /^npm:(.+)@([^@]+)$/.exec(from) ?? [];
      return used.includes(name) ? [[name, version]] : [];
    }),
  );
  return {
    name: config.name,
    version: config.version,
    description: "Pre-trains Llama models from TypeScript",
    license: "MIT",
    type: "module",
    bin: { titan: "./titan.js" },
    exports: { ".": { types: "./mod.d.ts", deno: "./mod.js", default: "./node.js" } },
    dependencies: { ...versions, deno },
    engines: { node: ">=20" },
  };
}

/** What Node takes for the package: it has all names, so that a program's imports are found, and has Deno run the program before any is used. */
export function nodeModule(names: readonly string[]): string {
  return [
    `import { runAgainByDeno } from "./launch/node.js";`,
    "await runAgainByDeno(import.meta.url);",
    `export const ${names.map((name) => `${name} = undefined`).join(", ")};`,
    "",
  ].join("\n");
}

/** The command `titan`. */
const TITAN = `#!/usr/bin/env node
import { fileURLToPath } from "node:url";
import { runByDeno } from "./launch/node.js";
await runByDeno(import.meta.url, fileURLToPath(new URL("mod.js", import.meta.url)), process.argv.slice(2));
`;

/** Packs.
 * @returns the path of the tarball. */
export async function packNpm(target: string): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "libtitan-" }), deno = Deno.execPath();
  try {
    await run([deno, "pack", "--quiet", "--allow-dirty", "--no-source-maps", "--output", `${folder}/packed.tgz`]);
    await run(["tar", "xzf", `${folder}/packed.tgz`, "-C", folder]);
    await run([deno, "transpile", "--outdir", `${folder}/package`, ...WORKERS, NODE]);
    await finish(`${folder}/package`);
    await Deno.mkdir(target, { recursive: true });
    return join(target, (await run(["npm", "pack", `${folder}/package`, "--pack-destination", target])).trim());
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function finish(folder: string): Promise<void> {
  const paths = [...filesOf(folder)].map((path) => relative(folder, path));
  const modules = new Set(paths.filter((path) => path.endsWith(".js")).map((path) => path.replace(/js$/, "ts")));
  for (const path of paths) {
    const file = `${folder}/${path}`;
    // Sources that nothing imports have been compiled, or are of no use here.
    if (/(?<!\.d)\.ts$/.test(path) || path === "deno.lock") await Deno.remove(file);
    if (!/\.(js|d\.ts|toml|json)$/.test(path) || /\/page\/|^data\/sample/.test(path)) continue;
    const text = await Deno.readTextFile(file);
    await Deno.writeTextFile(file, packedText(text, path.replace(/(\.d)?\.[jt]s$/, ".ts"), modules));
  }
  const config = JSON.parse(await Deno.readTextFile(`${root}deno.json`));
  const { dependencies } = JSON.parse(await Deno.readTextFile(`${folder}/package.json`));
  const json = packageJson(config, Deno.version.deno, Object.keys(dependencies));
  await Deno.writeTextFile(`${folder}/package.json`, `${JSON.stringify(json, null, 2)}\n`);
  await Deno.writeTextFile(`${folder}/node.js`, nodeModule(Object.keys(await import("../mod.ts"))));
  await Deno.writeTextFile(`${folder}/titan.js`, TITAN, { mode: 0o755 });
}

function* filesOf(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    if (isDirectory) yield* filesOf(`${folder}/${name}`);
    else yield `${folder}/${name}`;
  }
}

async function run([program, ...args]: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args, cwd: root }).output();
  if (code !== 0) throw new Error(`${program} ${args[0]} ended with ${code}:\n${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

if (import.meta.main) console.log(await packNpm(Deno.args[0] ?? `${root}build`));
