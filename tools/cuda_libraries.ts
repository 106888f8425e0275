/**
 * NVIDIA's libraries that the module for GPUs calls: cuBLASLt, cuDNN with its frontend, NCCL, NVRTC. CMake finds them
 * (`csrc/cmake/cuda_libraries.cmake`); what a system lacks comes as NVIDIA's own wheels from the Python package index, by
 * pip, into `build/cuda_parts`.
 * @module
 */
import { runStep, StepError } from "./run_step.ts";
import type { Facts } from "./setup_plan.ts";

/** Where wheels are unpacked; CMake's TITAN_CUDA_PARTS, unless told another folder. */
export const PARTS = "build/cuda_parts";

export type CudaLibrary = "cublaslt" | "cudnn" | "cudnn_frontend" | "nccl" | "nvrtc";

/** What people call a library, its wheel by the toolkit's major version, and its packages in NVIDIA's repository for Debian and Ubuntu. */
const LIBRARIES: Record<
  CudaLibrary,
  { name: string; wheels: Record<string, string>; packages: (version: string) => string }
> = {
  cublaslt: {
    name: "cuBLASLt",
    wheels: { 12: "nvidia-cublas-cu12==12.9.3.13", 13: "nvidia-cublas==13.0.2.14" },
    packages: (version) => `libcublas-dev-${version.replace(".", "-")}`,
  },
  cudnn: {
    name: "cuDNN",
    wheels: { 12: "nvidia-cudnn-cu12==9.28.0.42", 13: "nvidia-cudnn-cu13==9.28.1.4" },
    packages: (version) => `libcudnn9-dev-cuda-${version.split(".")[0]}`,
  },
  cudnn_frontend: {
    name: "cuDNN's C++ frontend",
    wheels: { 12: "nvidia-cudnn-frontend==1.32.0", 13: "nvidia-cudnn-frontend==1.32.0" },
    packages: () => "cudnn-frontend",
  },
  nccl: {
    name: "NCCL",
    wheels: { 12: "nvidia-nccl-cu12==2.32.3", 13: "nvidia-nccl-cu13==2.32.3" },
    packages: () => "libnccl-dev",
  },
  nvrtc: {
    name: "NVRTC",
    wheels: { 12: "nvidia-cuda-nvrtc-cu12==12.9.86", 13: "nvidia-cuda-nvrtc==13.0.88" },
    packages: (version) => `cuda-nvrtc-dev-${version.replace(".", "-")}`,
  },
};

/** What CMake found: the toolkit's version, and the folder of each library; undefined where one is missing. */
export interface Found {
  readonly toolkit: string;
  readonly folders: Record<CudaLibrary, string | undefined>;
}

/** Reads what `cuda_libraries.cmake` prints. */
export function parseFound(report: string): Found {
  const lines = new Map(
    report.trim().split("\n").map((line) => line.split(/ (.*)/, 2) as [string, string | undefined]),
  );
  const names = Object.keys(LIBRARIES) as CudaLibrary[];
  const folders = Object.fromEntries(names.map((name) => [name, lines.get(name) || undefined]));
  return { toolkit: lines.get("toolkit") ?? "", folders: folders as Found["folders"] };
}

/** The libraries that were not found. */
export function lacking({ folders }: Found): CudaLibrary[] {
  return (Object.keys(folders) as CudaLibrary[]).filter((name) => folders[name] === undefined);
}

/** The wheels of libraries for a toolkit, with their versions; undefined for a toolkit of which none is known. */
export function wheelsOf(toolkit: string, libraries: readonly CudaLibrary[]): string[] | undefined {
  const wheels = libraries.map((name) => LIBRARIES[name].wheels[toolkit.split(".")[0]]);
  return wheels.includes(undefined!) ? undefined : wheels;
}

/** One line on where libraries are, those of one folder together. */
export function describeFound({ toolkit, folders }: Found): string {
  const places = new Map<string, string[]>();
  for (const [name, folder] of Object.entries(folders)) {
    if (folder) places.set(folder, [...places.get(folder) ?? [], LIBRARIES[name as CudaLibrary].name]);
  }
  const text = [...places].map(([folder, names]) => `${names.join(", ")} in ${folder}`).join("; ");
  return `For GPUs, with the CUDA toolkit ${toolkit}: ${text || "no library yet"}`;
}

/** What is said where libraries are missing and cannot be fetched. */
export function lackingRefusal(
  found: Found,
  facts: Pick<Facts, "root" | "packageManager" | "anew">,
  why: string,
): string {
  const libraries = lacking(found), names = libraries.map((name) => LIBRARIES[name].name).join(", ");
  const pip = {
    "apt-get": "apt-get install -y python3-pip",
    dnf: "dnf install -y python3-pip",
    pacman: "pacman -S python-pip",
    brew: undefined,
  };
  const install = facts.packageManager && pip[facts.packageManager];
  const packages = libraries.map((name) => LIBRARIES[name].packages(found.toolkit)).join(" ");
  const first = why.includes("pip is") && install ? `${facts.root ? "" : "sudo "}${install}, or ` : "";
  return `Cannot build the module for GPUs: ${names} missing, and ${why}\n` +
    `  expected: in ${PARTS}, the toolkit, folders that CUDNN_ROOT, NCCL_ROOT or CMAKE_PREFIX_PATH name, or the system\n` +
    `  fix: ${first}install them from NVIDIA's repository (${packages}), or load a cluster's modules of them, then: ` +
    `npx -y deno task setup --cuda`;
}

/** Sees to it that the libraries are there: says where, and fetches what the system lacks.
 * @param mayFetch whether it may download. @throws {StepError} that says what is missing, and what to do. */
export async function provideCudaLibraries(facts: Facts, mayFetch: boolean): Promise<void> {
  const found = await look(facts.cuda!, PARTS);
  if (lacking(found).length > 0 || mayFetch && !isOfThese(found.toolkit)) await fetchInto(facts, mayFetch);
  console.error(describeFound(await look(facts.cuda!, PARTS)));
}

/** Fetches all that the system lacks, into a new folder that takes the place of the old one: pip would not add to a folder that is there. */
async function fetchInto(facts: Facts, mayFetch: boolean): Promise<void> {
  const system = await look(facts.cuda!, "none"), wheels = wheelsOf(system.toolkit, lacking(system));
  const refuse = (why: string) => new StepError(lackingRefusal(system, facts, why));
  if (!mayFetch) throw refuse("nobody asked for a module for GPUs by --cuda, which fetches them");
  if (wheels?.length === 0) return remove(PARTS);
  if (!wheels) throw refuse(`no wheels are known for the toolkit ${system.toolkit}`);
  if (!await succeeds("python3", "-m", "pip", "--version")) {
    throw refuse("pip is not there, which would fetch them (python3 -m pip)");
  }
  remove(`${PARTS}.new`);
  try {
    const pip = ["python3", "-m", "pip", "install", "--no-deps", "--target", `${PARTS}.new`];
    await runStep("Fetching NVIDIA's libraries, up to 1.3 GB", [...pip, ...wheels]);
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    throw refuse(`pip could not fetch them: ${error.message.trimEnd()}`);
  }
  remove(PARTS);
  Deno.renameSync(`${PARTS}.new`, PARTS);
  const now = await look(facts.cuda!, PARTS);
  if (lacking(now).length > 0) throw new StepError(lackingRefusal(now, facts, `the wheels in ${PARTS} have them not`));
}

/** Whether all wheels in the folder are those that are fetched today: of this toolkit's major version, and as they are pinned. */
function isOfThese(toolkit: string): boolean {
  const all = wheelsOf(toolkit, Object.keys(LIBRARIES) as CudaLibrary[]) ?? [];
  const known = new Set(
    all.map((wheel) => `${wheel.replace("==", "\0").replaceAll("-", "_").replace("\0", "-")}.dist-info`),
  );
  try {
    return [...Deno.readDirSync(PARTS)].every(({ name }) => !name.endsWith(".dist-info") || known.has(name));
  } catch {
    return true; // no folder: the system has all
  }
}

async function look(nvcc: string, parts: string): Promise<Found> {
  const args = [
    `-DTITAN_CUDA=${nvcc}`,
    `-DTITAN_CUDA_PARTS=${Deno.cwd()}/${parts}`,
    "-P",
    "csrc/cmake/cuda_libraries.cmake",
  ];
  const { success, stdout, stderr } = await new Deno.Command("cmake", { args, stdin: "null" }).output();
  if (!success) throw new StepError(new TextDecoder().decode(stderr));
  return parseFound(new TextDecoder().decode(stdout));
}

async function succeeds(program: string, ...args: string[]): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args, stdin: "null", stdout: "null", stderr: "null" }).output()).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function remove(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
