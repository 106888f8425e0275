/** The package as Node's users have it: packed, put by npm into a bare folder, whose library comes from this checkout (`package_builds.ts` is
 * how one is built). `node train.mjs` and `npx titan` have the losses of this checkout, and nothing is left but what npm puts there.
 * @module */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { library, userFolder } from "../../ffi/library.ts";
import { llama, texts, train } from "../../mod.ts";
import { packNpm } from "../../tools/pack_npm.ts";

const folder = await Deno.makeTempDir(), cache = await Deno.makeTempDir();
const env = { XDG_CACHE_HOME: cache, TITAN_LIB: "", NO_COLOR: "1", INIT_CWD: folder };

async function run(program: string, ...args: string[]): Promise<{ code: number; out: string; error: string }> {
  const begun = performance.now();
  const { code, stdout, stderr } = await new Deno.Command(program, { args, cwd: folder, env }).output();
  const [out, error] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  console.log(`${program} ${args.join(" ")}: ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  return { code, out, error };
}

try {
  const tarball = await packNpm(folder);
  console.log(`the package has ${((await Deno.stat(tarball)).size / 1e6).toFixed(1)} MB`);
  assertEquals((await run("npm", "install", "--no-audit", "--no-fund", tarball)).code, 0);
  await Deno.remove(tarball);

  Deno.env.set("XDG_CACHE_HOME", cache);
  const build = `${userFolder()}/build`;
  await Deno.mkdir(build, { recursive: true });
  await Deno.copyFile(library().path, `${build}/libtitan.so`);
  await Deno.writeTextFile(`${folder}/note.txt`, "One two three four five six seven eight nine ten. ".repeat(100));
  const options = '{ steps: 2, batch: 2, seqLen: 32, model: llama("debug", { dim: 32, numLayers: 1, numHeads: 2 }) }';
  await Deno.writeTextFile(
    `${folder}/train.mjs`,
    `import { llama, texts, train } from "@libtitan/titan";
for await (const { loss } of train({ ...${options}, data: texts("note.txt") })) console.log(loss);
`,
  );
  const losses: number[] = [], model = llama("debug", { dim: 32, numLayers: 1, numHeads: 2 });
  for await (const { loss } of train({ steps: 2, batch: 2, seqLen: 32, model, data: texts(`${folder}/note.txt`) })) {
    losses.push(loss);
  }
  const own = await run("node", "train.mjs");
  assertEquals([own.code, own.out], [0, losses.map((loss) => `${loss}\n`).join("")], own.error);
  assertMatch(own.error, /^libtitan: Node opens no native library, so Deno runs \S+train\.mjs again\n$/);

  const help = await run("npx", "titan", "help");
  assertEquals([help.code, help.error], [0, ""]);
  assert(help.out.startsWith("Usage: npx titan COMMAND"), help.out);
  const sizes = ["--model.n_layers=1", "--training.seq_len=64", "--training.steps=1", "--validation.no_enable"];
  const run1 = await run("npx", "titan", "train", ...sizes);
  assertEquals(run1.code, 0, run1.error);
  assertMatch(run1.out, /^step: +1 +loss: +\d/m);
  const wrong = await run("npx", "titan", "trian");
  assertEquals([wrong.code, wrong.error.split("\n").at(-2)], [1, "  fix: write train"]);

  const left = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  assertEquals(left, ["node_modules", "note.txt", "outputs", "package-lock.json", "package.json", "train.mjs"]);

  // As npm puts what is for all folders.
  for (const name of ["package.json", "package-lock.json"]) await Deno.remove(`${folder}/${name}`);
  const everywhere = await run(`${folder}/node_modules/.bin/titan`, "help");
  assertEquals([everywhere.code, everywhere.out], [0, help.out], everywhere.error);
} finally {
  for (const place of [folder, cache]) await Deno.remove(place, { recursive: true });
}
