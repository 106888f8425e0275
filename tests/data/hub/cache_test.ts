import { assert, assertEquals } from "@std/assert";
import { HubCache, takeLock } from "../../../data/hub/cache.ts";
import { type HubFile, repository } from "../../../data/hub/hub.ts";
import { temporaryFolder } from "../fixture.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const FILE: HubFile = {
  repository: repository("dataset", "org/sets"),
  commit: COMMIT,
  path: "en/a/b.txt",
  size: 4,
  etag: "f00",
};

Deno.test("a file lies where Python's client looks for it", async () => {
  await using folder = await temporaryFolder();
  const cache = new HubCache(folder.path);
  assertEquals(await cache.find(FILE.repository, COMMIT, FILE.path), undefined);
  await Deno.mkdir(`${folder.path}/datasets--org--sets/blobs`, { recursive: true });
  await Deno.writeTextFile(cache.blob(FILE), "text");
  const path = await cache.link(FILE);
  assertEquals(path, `${folder.path}/datasets--org--sets/snapshots/${COMMIT}/en/a/b.txt`);
  assertEquals(await Deno.readTextFile(path), "text");
  assertEquals(await Deno.readLink(path), "../../../../blobs/f00"); // relative, so that the folder can be moved
  assertEquals(await cache.find(FILE.repository, COMMIT, FILE.path), path);
  await Deno.remove(cache.blob(FILE));
  assertEquals(await cache.find(FILE.repository, COMMIT, FILE.path), undefined);
});

Deno.test("a branch's commit is kept, and a commit is its own", async () => {
  await using folder = await temporaryFolder();
  const cache = new HubCache(folder.path), { repository } = FILE;
  assertEquals(await cache.commit(repository, "main"), undefined);
  await cache.keepCommit(repository, "main", COMMIT);
  await cache.keepCommit(repository, "refs/pr/1", COMMIT);
  assertEquals(await Deno.readTextFile(`${folder.path}/datasets--org--sets/refs/refs/pr/1`), COMMIT);
  assertEquals(await cache.commit(repository, "main"), COMMIT);
  assertEquals(await cache.commit(repository, COMMIT), COMMIT);
});

Deno.test("a lock is had by one at a time", async () => {
  await using folder = await temporaryFolder();
  const cache = new HubCache(folder.path);
  const first = await cache.lock(FILE, { wait: false });
  assert(first !== undefined);
  assertEquals(await cache.lock(FILE, { wait: false }), undefined);
  const second = cache.lock(FILE, { wait: true });
  await first[Symbol.asyncDispose]();
  await using _second = await second;
  assert(_second !== undefined);
});

Deno.test("a lock ends with the process that has it, also where that one is killed", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/lock`;
  const code = `
    import { takeLock } from ${JSON.stringify(import.meta.resolve("../../../data/hub/cache.ts"))};
    await takeLock(${JSON.stringify(path)}, { wait: true });
    console.log("locked");
    setInterval(() => {}, 1000);`;
  await Deno.writeTextFile(`${folder.path}/holder.ts`, code);
  const config = new URL("../../../deno.json", import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--config", config, `${folder.path}/holder.ts`],
    stdout: "piped",
  }).spawn();
  const output = child.stdout.getReader();
  assertEquals(new TextDecoder().decode((await output.read()).value), "locked\n");
  assertEquals(await takeLock(path, { wait: false }), undefined);
  child.kill("SIGKILL");
  await child.status;
  await output.cancel();
  await using lock = await takeLock(path, { wait: false });
  assert(lock !== undefined);
});
