import { assertEquals, assertStringIncludes } from "@std/assert";
import { nodeModule, packageJson, packedText } from "../../tools/pack_npm.ts";
import config from "../../deno.json" with { type: "json" };

const modules = new Set(["mod.ts", "data/ring.ts", "data/prefetch_worker.ts", "tools/install.ts"]);
const packed = (text: string) => packedText(text, "data/prefetch.ts", modules);

Deno.test("modules of the package are named as JavaScript, wherever a text names one, and nothing else is", () => {
  assertEquals(packed('import { Ring } from "./ring.ts";'), 'import { Ring } from "./ring.js";');
  assertEquals(
    packed('new URL("./prefetch_worker.ts", import.meta.url)'),
    'new URL("./prefetch_worker.js", import.meta.url)',
  );
  assertEquals(packed('new URL("tools/install.ts", PACKAGE)'), 'new URL("tools/install.js", PACKAGE)');
  for (const text of ['name.endsWith(".ts")', '"../bench/bench.ts"', '"ring.ts"']) assertEquals(packed(text), text);
});

Deno.test("packages of std/ are found in the package", () => {
  assertEquals(packed('import { parse } from "@std/toml";'), 'import { parse } from "../std/toml/mod.js";');
  assertEquals(packedText('from "@std/toml"', "mod.ts", modules), 'from "./std/toml/mod.js"');
});

Deno.test("what the command line says of itself is what users of npm type", () => {
  const said = [
    ["  fix: npx -y deno task setup --mpi", "  fix: npx titan setup --mpi"],
    ["run `deno task build`", "run `npx titan setup --again`"],
    ["npx -y deno task download --repo", "npx titan data download --repo"],
    ["npx -y deno run -A mod.ts completion", "npx titan completion"],
    ["Usage: deno run -A mod.ts COMMAND", "Usage: npx titan COMMAND"],
  ];
  for (const [text, other] of said) assertEquals(packed(text), other);
});

Deno.test("packages have the versions that a checkout has, and Deno that of the one that packs", () => {
  const { dependencies } = packageJson(config, "2.9.6", ["zod", "hyparquet"]);
  const version = (name: "zod" | "hyparquet") => config.imports[name].replace(/.*@/, "");
  assertEquals(dependencies, { zod: version("zod"), hyparquet: version("hyparquet"), deno: "2.9.6" });
});

Deno.test("Node finds all names of the package, and has Deno run the program before it uses one", async () => {
  const text = nodeModule(["llama", "train"]);
  const stub = 'export const runAgainByDeno = () => { throw new Error("again"); };';
  const own = text.replace('"./launch/node.js"', `"data:text/javascript,${encodeURIComponent(stub)}"`);
  const program = `import { llama, train } from "data:text/javascript,${encodeURIComponent(own)}"; llama(train);`;
  const { stderr } = await new Deno.Command("node", { args: ["--input-type=module", "-e", program] }).output();
  assertStringIncludes(new TextDecoder().decode(stderr), "Error: again");
});

Deno.test("the package holds the tools that its command line loads, and no others", async () => {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json", "mod.ts"] }).output();
  const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as { modules: { specifier: string }[] };
  const loaded = modules.flatMap(({ specifier }) => /\/(tools\/\w+\.ts)$/.exec(specifier)?.[1] ?? []).sort();
  assertEquals(config.publish.include.filter((path) => path.startsWith("tools/")), loaded);
});
