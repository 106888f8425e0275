/**
 * The tests of GPUs, in one command: `deno task test:gpu` runs them on the GPU of this machine, and then the ops under the
 * tools of compute-sanitizer, where that is found. `--emulated` runs the same cases on the module that emulates a GPU.
 * `--count` says how many cases a GPU would run. The exit code is 0 where all pass, 1 where one fails, and 77 where there
 * is no GPU.
 * @module
 */
import { Device } from "../ffi/device.ts";

/** Cases on the device that TITAN_DEVICE names: ops, random graphs, PyTorch's goldens, and whole models (several processes too). */
const files = (): string[] => {
  const ofModels = [...Deno.readDirSync("tests/native")].map(({ name }) => name).filter((name) =>
    /^gpu\w*_test\.ts$/.test(name)
  );
  return ["ops_test.ts", "random_graphs_test.ts", "parity_test.ts", ...ofModels.sort()].map((name) =>
    `tests/native/${name}`
  );
};

/** What looks into kernels while they run: bad addresses, races in shared memory, memory that nobody wrote, wrong barriers. */
const TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"] as const;
/** What runs under each of them. */
const UNDER_TOOLS = ["tests/native/ops_test.ts"];
/** Exit code where there is no GPU, as test programs tell that they were skipped. */
export const NO_GPU = 77;

const test = (...args: string[]): string[] => {
  const allowed = ["read", "write", "run", "env", "ffi", "sys", "net=127.0.0.1"].map((name) => `--allow-${name}`);
  return ["test", "--no-prompt", "--sanitize-ops", "--sanitize-resources", ...allowed, ...args];
};

async function run(program: string, args: readonly string[], env: Record<string, string>): Promise<boolean> {
  console.log(`\n${program.replace(Deno.execPath(), "deno")} ${args.join(" ")}`);
  const child = new Deno.Command(program, { args: [...args], env: { TITAN_DEVICE: "cuda", ...env }, stdin: "null" })
    .spawn();
  return (await child.status).success;
}

/** Cases of files: all are left out by a name that none has, and Deno says how many those were. */
async function count(paths: readonly string[]): Promise<number> {
  const args = test("--no-check", "--filter", "/^$/", ...paths), env = { TITAN_DEVICE: "cuda", NO_COLOR: "1" };
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, env, stdin: "null" }).output();
  const found = /(\d+) filtered out/.exec(new TextDecoder().decode(stdout));
  if (!found) throw new Error(`the cases cannot be counted:\n${new TextDecoder().decode(stderr)}`);
  return Number(found[1]);
}

/** Cases that a GPU would run. */
export async function casesOfGpus(): Promise<number> {
  return await count(files()) + TOOLS.length * await count(UNDER_TOOLS);
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path) !== undefined;
  } catch {
    return false;
  }
}

/** Is a GPU of NVIDIA's in this machine, whether it works or not? */
const isThere = (): boolean => ["/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"].some(exists);

/** compute-sanitizer, of the toolkit or in PATH. */
function findSanitizer(): string | undefined {
  const toolkits = [Deno.env.get("CUDA_HOME"), Deno.env.get("CUDA_PATH"), "/usr/local/cuda"].filter((folder) => folder);
  const folders = [...toolkits.map((folder) => `${folder}/bin`), ...(Deno.env.get("PATH") ?? "").split(":")];
  return folders.map((folder) => `${folder}/compute-sanitizer`).find(exists);
}

/** Runs everything on a GPU, or on the module of this path that emulates one. @returns the exit code. */
async function main(args: readonly string[]): Promise<number> {
  const unknown = args.find((arg) => arg !== "--emulated" && arg !== "--count");
  if (unknown !== undefined) throw new Error(`test:gpu has no ${unknown}\n  expected: --emulated, --count, or nothing`);
  if (args.includes("--count")) {
    console.log(`GPU cases: ${await casesOfGpus()} not run here`);
    return 0;
  }
  if (args.includes("--emulated")) {
    const built = await run("cmake", ["--build", "build/cmake", "--target", "titan_cuda_emulated", "--parallel"], {});
    const module = `${Deno.cwd()}/build/cmake/libtitan_cuda_emulated.so`;
    return built && await run(Deno.execPath(), test(...files()), { TITAN_CUDA: module }) ? 0 : 1;
  }
  try {
    using device = new Device({ kind: "cuda" });
    console.log(`${device.info.processor} (${device.info.level})`);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    if (isThere()) return 1;
    console.error(
      "There is no GPU here, so nothing of it was tested\n  expected: one of NVIDIA's, with its driver, and the module " +
        "that deno task setup --cuda builds\n  fix: run this on such a machine, or test:gpu --emulated here",
    );
    return NO_GPU;
  }
  let good = await run(Deno.execPath(), test(...files()), {});
  const sanitizer = findSanitizer();
  if (!sanitizer) {
    console.log("\nskipped: compute-sanitizer's tools, as it is neither in PATH nor in the toolkit (CUDA_HOME)");
  }
  for (const tool of sanitizer ? TOOLS : []) {
    const options = ["--tool", tool, "--target-processes", "all", "--error-exitcode", "1"];
    good = await run(sanitizer!, [...options, Deno.execPath(), ...test(...UNDER_TOOLS)], {}) && good;
  }
  return good ? 0 : 1;
}

if (import.meta.main) {
  try {
    Deno.exit(await main(Deno.args));
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
