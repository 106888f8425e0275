/** What a run takes in a control group (cgroup): the limits are real, where this machine lets a test set some.
 * @module */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { temporaryFolder } from "../data/fixture.ts";
import { testRanks } from "./mpirun.ts";

const root = fromFileUrl(new URL("../..", import.meta.url)), GIB = 2 ** 30;

/** Runs a command there; `error` is what it wrote there. */
async function output(command: string, args: readonly string[]): Promise<{ code: number; out: string; error: string }> {
  const env = { NO_COLOR: "1", OMP_NUM_THREADS: "" };
  const { code, stdout, stderr } = await new Deno.Command(command, { args: [...args], cwd: root, env }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  return { code, out: text(stdout), error: text(stderr) };
}

/** Runs a command where memory and processor time are limited. */
function limited(memoryBytes: number, cpus: number, ...command: string[]): ReturnType<typeof output> {
  return output("sh", ["tests/native/cgroup.sh", `${memoryBytes}`, `${cpus * 100_000}`, ...command]);
}

const isLinux = Deno.build.os === "linux";
const { code, error: why } = isLinux ? await limited(GIB, 1, "true") : { code: 99, error: "no Linux" };
const test = (name: string, fn: () => Promise<void>) =>
  Deno.test({ name: code === 0 ? name : `${name} (skipped: ${why})`, ignore: code !== 0, fn });

/** Prints threads and memory of a device. */
const device = [
  ...[Deno.execPath(), "eval", "--no-config"],
  `import { Device } from "./ffi/device.ts"; using device = new Device();
   const { threads, threadsText } = device.info;
   console.log(JSON.stringify({ threads, threadsText, ...device.memory() }));`,
];

/** A run with the permissions of the task, in a folder. */
function train(folder: string, ...args: string[]): string[] {
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${root}/deno.json`));
  const [, ...run] = (tasks.train.command as string).split(" ");
  return [
    Deno.execPath(),
    ...run,
    "--job.dump_folder",
    folder,
    "--validation.no_enable",
    "--training.steps",
    "2",
    ...args,
  ];
}

test("a CPU quota allows as many threads as it keeps busy", async () => {
  const all = JSON.parse((await output(device[0], device.slice(1))).out).threads;
  for (const [cpus, threads] of [[1, 1], [1.5, 2]]) {
    const { out, error } = await limited(2 * GIB, cpus, ...device), found = JSON.parse(out || error);
    assertEquals(found.threads, Math.min(all, threads));
    if (threads < all) assertEquals(found.threadsText, `the CPU quota is ${cpus}`);
    const { totalBytes, availableBytes, file } = found;
    assertEquals(totalBytes, 2 * GIB);
    assert(GIB < availableBytes && availableBytes <= totalBytes, `${availableBytes}`);
    assertMatch(file, /libtitan-\d+\/memory\.(max|limit_in_bytes)$/);
  }
});

test("a run that needs more than its group may have is refused before it takes any, and one that fits trains", async () => {
  await using folder = await temporaryFolder();
  const refused = await limited(2 * GIB, 2, ...train(folder.path, "--training.local_batch_size", "200"));
  assertEquals(refused.code, 1, refused.error);
  assertMatch(
    refused.error,
    /GiB of the 2\.0 GiB that \S+libtitan-\d+\/memory\.(max|limit_in_bytes) allows are available/,
  );
  assertMatch(
    refused.error,
    /\n {2}expected: at most [12]\.\d GiB\n {2}fix: training.local_batch_size 100 instead of 200/,
  );
  const most = Number(refused.error.split("\n").at(-1));
  assert(most > 2 ** 26 && most < GIB, `${most} bytes`);
  const fits = await limited(2 * GIB, 2, ...train(folder.path));
  assertEquals(fits.code, 0, fits.error);
  assertMatch(fits.out, /\nstep: {2}2 .* memory: .*GiB\(/);
});

(code === 0 ? testRanks : test)("ranks in a group count on equal parts of what is left there", async () => {
  await using folder = await temporaryFolder();
  const { code, error } = await limited(
    2 * GIB,
    2,
    ...train(folder.path, "--nproc", "2", "--training.local_batch_size", "100"),
  );
  assertEquals(code, 1, error);
  const [, needed, available] = /a run needs (1\.\d) GiB, .*; (\S+) MiB of the 2\.0 GiB that /.exec(error) ?? [];
  // It would fit if each rank could have all, or if one had come first.
  assert(Number(needed) < 2 && 900 < Number(available) && Number(available) < 1024, error);
});

/** Files that stand for those of version 2 in a container, and a process that sees them as its own. */
const byHand = `
  mount -t tmpfs none /sys/fs/cgroup && cd /sys/fs/cgroup &&
  echo 150000 100000 >cpu.max && echo 2147483648 >memory.max && echo max >memory.high && echo 1073741824 >memory.current &&
  printf 'active_file 0\\ninactive_file 536870912\\n' >memory.stat &&
  echo 0::/ >cgroup && echo '25 30 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw' >mountinfo &&
  mount --bind cgroup /proc/$$/cgroup && mount --bind mountinfo /proc/$$/mountinfo && cd - >&2 && exec "$@"`;
const namespace = ["--mount", "sh", "-c", byHand, "sh"];
const isRoot = isLinux && (await output("unshare", [...namespace, "true"]).catch(() => ({ code: 1 }))).code === 0;

Deno.test({
  name: "a container of version 2 tells a device the same",
  ignore: !isRoot, // for want of leave to mount
  fn: async () => {
    const { out, error } = await output("unshare", [...namespace, ...device]);
    const { threads, totalBytes, availableBytes, file } = JSON.parse(out || error);
    assert(threads <= 2);
    assertEquals([totalBytes, file], [2 * GIB, "/sys/fs/cgroup/memory.max"]);
    // 1 GiB is in use, of which half gives way; what the process has already is among it.
    assert(1.5 * GIB < availableBytes && availableBytes < 1.75 * GIB, `${availableBytes}`);
  },
});
