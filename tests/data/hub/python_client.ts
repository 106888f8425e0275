/** Python's `huggingface_hub` and libtitan on one hub: each finds in the cache what the other has downloaded, and asks for none of it
 * again.
 *
 *     deno run -A tests/data/hub/python_client.ts PYTHON
 *
 * PYTHON is one with the package `huggingface_hub`.
 * @module */
import { assert, assertEquals } from "@std/assert";
import { HubCache } from "../../../data/hub/cache.ts";
import { download } from "../../../data/hub/download.ts";
import { repository } from "../../../data/hub/hub.ts";
import { temporaryFolder } from "../fixture.ts";
import { HubServer } from "../hub_server.ts";
import { clientOf, someBytes } from "./fixture.ts";

const [python] = Deno.args;
const FILES = {
  "config.json": "{}",
  "a/model.safetensors": someBytes(3_000_000),
  "a/b/tokenizer.json": someBytes(2000, 2),
};

await using server = new HubServer();
await using folder = await temporaryFolder();
const commit = server.add("org/model", FILES), model = repository("model", "org/model");
const setsCommit = server.add("datasets/org/sets", { "en/part-0.json.gz": someBytes(5000, 3) });
server.page = 2;

/** Prints where Python's client has put, or finds, the files of a repository. */
async function snapshot(name: string, repository: string, kind: string, ...more: string[]): Promise<string> {
  const options = [`repo_type="${kind}"`, ...more].join(", ");
  const code = `from huggingface_hub import snapshot_download\nprint(snapshot_download("${repository}", ${options}))`;
  const { success, stdout, stderr } = await new Deno.Command(python, {
    args: ["-c", code],
    env: { HF_ENDPOINT: server.endpoint, HF_HOME: `${folder.path}/${name}`, HF_HUB_DISABLE_PROGRESS_BARS: "1" },
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim();
}

/** How often bytes of large files were asked for. */
const bodies = () => server.ranges().length;

// What Python brings, libtitan finds, even while the connection breaks once.
let broken = false;
server.fault = ({ elsewhere }) => {
  const first = elsewhere && !broken;
  broken ||= elsewhere;
  return first ? { kind: "cut", after: 1_000_000 } : undefined;
};
const theirs = await snapshot("python", "org/model", "model");
const before = bodies(), cache = new HubCache(`${folder.path}/python/hub`), client = clientOf(server);
assertEquals(await cache.commit(model, "main"), commit);
for (const [path, bytes] of Object.entries(FILES)) {
  const found = await download(client, cache, await client.file(model, "main", path));
  assertEquals(found, `${theirs}/${path}`);
  assertEquals(await cache.find(model, commit, path), found);
  assertEquals(await Deno.readFile(found), typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes);
}
assertEquals(bodies(), before);
const sets = repository("dataset", "org/sets"), theirSets = await snapshot("python", "org/sets", "dataset");
assertEquals(await cache.find(sets, setsCommit, "en/part-0.json.gz"), `${theirSets}/en/part-0.json.gz`);

// What libtitan brings, Python finds, with the network and without.
const own = new HubCache(`${folder.path}/own/hub`);
await own.keepCommit(model, "main", commit);
for (const file of await client.files(model, commit)) await download(client, own, file);
const after = bodies();
for (const more of [[], ["local_files_only=True"]]) {
  const found = await snapshot("own", "org/model", "model", ...more);
  assertEquals(found, `${own.folder}/models--org--model/snapshots/${commit}`);
  assertEquals(await Deno.readFile(`${found}/a/model.safetensors`), FILES["a/model.safetensors"]);
}
assertEquals(bodies(), after);
console.log("huggingface_hub and libtitan find each other's files, and bring none of them twice");
