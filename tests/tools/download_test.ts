import { assert, assertEquals, assertRejects } from "@std/assert";
import { DataError } from "../../data/error.ts";
import { run } from "../../tools/download.ts";
import { UsageError } from "../../tools/tool.ts";
import { temporaryFolder } from "../data/fixture.ts";
import { HubServer } from "../data/hub_server.ts";
import { HASTE, someBytes } from "../data/hub/fixture.ts";

const MODEL = {
  "config.json": "{}",
  "tokenizer.json": "{}",
  "model.safetensors": someBytes(200_000),
  "pytorch_model.bin": someBytes(100_000, 2),
  "original/tokenizer.model": "vocabulary",
};
const C4 = Object.fromEntries(
  [0, 1, 2].map((n) => [`en/c4-train.${String(n).padStart(5, "0")}-of-01024.json.gz`, someBytes(5000 + n, n + 1)]),
);

/** A hub with a model and some of C4, and the command on it. */
async function begin() {
  const server = new HubServer(), folder = await temporaryFolder();
  const commit = server.add("org/model", MODEL);
  server.add("datasets/allenai/c4", C4, { commit: "1588ec454efa1a09f29cd18ddd04fe05fc8653a2" });
  const settings = {
    endpoint: server.endpoint,
    token: undefined,
    cache: `${folder.path}/hub`,
    own: `${folder.path}/own`,
    offline: false,
  };
  const command = async (...args: string[]) => {
    const lines: string[] = [], notes: string[] = [];
    const console = { print: (text: string) => lines.push(text), note: (text: string) => notes.push(text) };
    const code = await run(args, console, { settings, patience: HASTE });
    return { code, lines, notes };
  };
  const end = async () => (await server[Symbol.asyncDispose](), await folder[Symbol.asyncDispose]());
  return { server, folder: folder.path, commit, command, [Symbol.asyncDispose]: end };
}

/** Paths of the files below a folder. */
async function filesOf(folder: string, below = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(`${folder}/${below}`)) {
    if (isDirectory) found.push(...await filesOf(folder, `${below}${name}/`));
    else found.push(`${below}${name}`);
  }
  return found.sort();
}

Deno.test("of a model those files come that are read, and the last line is their folder", async () => {
  await using hub = await begin();
  const { code, lines, notes } = await hub.command("--repo", "org/model");
  const folder = `${hub.folder}/hub/models--org--model/snapshots/${hub.commit}`;
  assertEquals([code, lines], [0, [folder]]);
  assertEquals(await filesOf(folder), [
    "config.json",
    "model.safetensors",
    "original/tokenizer.model",
    "tokenizer.json",
  ]);
  assertEquals(await Deno.readFile(`${folder}/model.safetensors`), MODEL["model.safetensors"]);
  assertEquals(notes[0], `org/model at ${hub.commit.slice(0, 12)}: 4 files of 5, 195.3 KiB`);
  assert(/^\[#{20}\] 100 % 195.3 KiB of 195.3 KiB, .*, 4 of 4 files$/.test(notes.at(-1)!), notes.at(-1));
});

Deno.test("a second download of the same brings nothing", async () => {
  await using hub = await begin();
  await hub.command("--repo", "org/model");
  hub.server.asked.length = 0;
  assertEquals((await hub.command("--repo", "org/model", "--revision", hub.commit)).code, 0);
  assertEquals(hub.server.asked.map(({ path }) => path.split("?")[0]), [`/api/models/org/model/tree/${hub.commit}`]);
});

Deno.test("patterns, assets and torchtitan's flags choose files", async () => {
  for (
    const [args, files] of [
      [["--all"], Object.keys(MODEL).sort()],
      [["--include", "*.bin", "config*"], ["config.json", "pytorch_model.bin"]],
      [["--all", "--exclude", "*.bin", "*.safetensors"], ["config.json", "original/tokenizer.model", "tokenizer.json"]],
      [["--assets", "tokenizer"], ["original/tokenizer.model", "tokenizer.json"]],
      [["--assets", "config", "--additional_patterns=*.bin"], ["config.json", "pytorch_model.bin"]],
    ] as const
  ) {
    await using hub = await begin();
    await hub.command("--repo_id", "org/model", ...args);
    const folder = `${hub.folder}/hub/models--org--model/snapshots/${hub.commit}`;
    assertEquals(await filesOf(folder), [...files], args.join(" "));
  }
});

Deno.test("shards of C4 come by their numbers, and no list is asked for", async () => {
  await using hub = await begin();
  const { lines } = await hub.command("--dataset", "c4", "--shards", "1-2");
  assert(lines[0].endsWith("/datasets--allenai--c4/snapshots/1588ec454efa1a09f29cd18ddd04fe05fc8653a2/en"), lines[0]);
  assertEquals(await filesOf(lines[0]), Object.keys(C4).slice(1).map((path) => path.slice(3)));
  assert(hub.server.asked.every(({ path }) => !path.startsWith("/api")));
  await assertRejects(() => hub.command("--dataset", "c4", "--shards", "1020-1024"), DataError, "from 0 to 1023");
});

Deno.test("a broken connection is taken up, and a file that cannot be had ends the download with its error", async () => {
  await using hub = await begin();
  hub.server.fault = ({ elsewhere }) => elsewhere ? { kind: "cut", after: 40_000 } : undefined;
  await hub.command("--repo", "org/model");
  assert(hub.server.ranges().includes(40_000));
  hub.server.fault = ({ elsewhere }) => elsewhere ? { kind: "status", status: 503 } : undefined;
  await assertRejects(() => hub.command("--repo", "org/model", "--all"), DataError, "pytorch_model.bin of org/model");
});

Deno.test("a command line that asks for nothing or for something strange is refused", async () => {
  await using hub = await begin();
  for (
    const [args, message] of [
      [["--shards", "0-7"], "one of --repo and --dataset"],
      [["--repo", "a/b", "--dataset", "c4"], "one of --repo and --dataset"],
      [["--repo"], "--repo has no value"],
      [["--repo", "a/b", "--inculde", "x"], "write --include"],
      [["--repo", "a/b", "c"], 'Cannot place "c"'],
      [["--repo", "a/b", "--local_dir", "c"], "set HF_HOME"],
      [["--repo", "a/b", "--assets", "all"], "tokenizer, config, index, safetensors"],
      [["--dataset", "c4/de"], "/realnewslike"],
      [["--dataset", "c4_test"], "There is no c4_test on the hub"],
      [["--dataset", "c4", "--shards", "7-1"], "A-B"],
      [["--dataset", "a/b", "--shards", "1"], "--shards counts those of c4"],
      [["--repo", "org/model", "--include", "*.gguf"], "None of the 5 files"],
    ] as const
  ) {
    await assertRejects(() => hub.command(...args), DataError, message);
  }
  await assertRejects(() => hub.command(), UsageError, "\n\nUsage: npx -y deno task download");
});
