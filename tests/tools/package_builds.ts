/** A stranger's first minutes: in a folder with one program, and a user's cache without a library, the first start builds it from what the
 * package's server has, and trains; the second only trains. TITAN_LEVELS says for which processor levels it is built, all unless given.
 * @module */
import { denoDir, servePackage } from "./package_server.ts";

await using server = await servePackage();
const folder = await Deno.makeTempDir(), cache = await Deno.makeTempDir(), kept = await denoDir();
await Deno.writeTextFile(`${folder}/note.txt`, "One two three four five six seven eight nine ten. ".repeat(100));
await Deno.writeTextFile(
  `${folder}/main.ts`,
  `import { llama, texts, train } from "${server.url}mod.ts";
const model = llama("debug", { dim: 32, numLayers: 1, numHeads: 2 });
for await (const { step, loss } of train({ model, data: texts("note.txt"), steps: 2, batch: 2, seqLen: 32 })) console.log(step, loss);
`,
);
try {
  const texts: string[] = [];
  for (const start of ["first", "second"]) {
    const begun = performance.now();
    const { code, stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "-A", "main.ts"],
      cwd: folder,
      env: { DENO_DIR: kept, XDG_CACHE_HOME: cache, TITAN_LIB: "" },
      stderr: "inherit",
    }).output();
    console.log(`the ${start} start: ${((performance.now() - begun) / 1000).toFixed(1)} s`);
    if (code !== 0) Deno.exit(1);
    texts.push(new TextDecoder().decode(stdout));
  }
  const written = [...Deno.readDirSync(folder), ...Deno.readDirSync(cache)].map(({ name }) => name).sort().join(" ");
  const isRight = /^1 \d+\.\d+\n2 \d+\.\d+\n$/.test(texts[0]) && texts[0] === texts[1] &&
    written === "libtitan main.ts note.txt";
  console.log(texts.join(""), written);
  Deno.exitCode = isRight ? 0 : 1;
} finally {
  for (const place of [folder, cache]) await Deno.remove(place, { recursive: true });
}
