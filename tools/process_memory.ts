/**
 * Where a run's memory is: trains three steps of a configuration and shows the arena, as planned and as the system has it, and
 * what the rest of the process consists of.
 *
 *     deno run -A tools/process_memory.ts [--config FILE] [--section.key value ...]
 *
 * Linux alone: it reads `/proc/PID/smaps`. MB are 10^6 bytes.
 * @module
 */
import { loadConfig, trainOptions } from "../train/config/config.ts";
import { Trainer } from "../train/trainer.ts";

/** A range of a process' addresses. Sizes are bytes. */
export interface Mapping {
  /** A file, `[heap]`, `[anon:NAME]`, or nothing for memory without a name. */
  readonly name: string;
  readonly bytes: number;
  /** Of that, in memory now. */
  readonly residentBytes: number;
}

/** Reads the text of `/proc/PID/smaps`. */
export function parseSmaps(text: string): Mapping[] {
  const heads = [...text.matchAll(/^[\da-f]+-[\da-f]+ \S+ \S+ \S+ \d+ *(.*)$/gm)];
  return heads.map(({ 0: line, 1: name, index }, i) => {
    const body = text.slice(index + line.length, heads[i + 1]?.index);
    const kib = (key: string): number => Number(body.match(new RegExp(`^${key}: +(\\d+) kB$`, "m"))?.[1] ?? 0);
    return { name, bytes: kib("Size") * 1024, residentBytes: kib("Rss") * 1024 };
  });
}

/** Mappings of a process. `cat` reads them, since Deno wants all permissions for `/proc`. */
export async function mappingsOf(pid: number): Promise<Mapping[]> {
  const { stdout, success } = await new Deno.Command("cat", { args: [`/proc/${pid}/smaps`] }).output();
  if (!success) throw new Error(`Cannot read /proc/${pid}/smaps\n  expected: a process of this user, on Linux`);
  return parseSmaps(new TextDecoder().decode(stdout));
}

/** The mapping of an arena: by its name where the kernel keeps names, else by its size. Of arenas that ranks of one host share with this
 * process, which has mapped them too, its own is the one that it has touched. */
export function arenaOf(mappings: readonly Mapping[], arenaBytes: number): Mapping | undefined {
  const sized = mappings.filter((m) => m.bytes === arenaBytes).sort((a, b) => b.residentBytes - a.residentBytes);
  return sized.find((m) => /^(\[anon|\/memfd):libtitan arena/.test(m.name)) ?? sized.find((m) => m.name === "");
}

/** Resident bytes by name, largest first. Files are named without their folders. */
export function byName(mappings: readonly Mapping[]): [name: string, residentBytes: number][] {
  const sums = new Map<string, number>();
  for (const { name, residentBytes } of mappings) {
    const short = name === "" ? "without a name" : name.replace(/^.*\//, "");
    sums.set(short, (sums.get(short) ?? 0) + residentBytes);
  }
  return [...sums].sort(([, a], [, b]) => b - a);
}

if (import.meta.main) {
  const { config } = await loadConfig(Deno.args, (path) => Deno.readTextFile(path));
  await using trainer = await Trainer.open({ ...trainOptions(config), steps: 3 });
  for await (const { step, loss } of trainer) console.log(`step ${step} loss ${loss.toFixed(4)}`);
  const { arenaBytes } = trainer.program.compiled.plan;
  const mappings = await mappingsOf(Deno.pid), arena = arenaOf(mappings, arenaBytes);
  const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
  const exact = (bytes = 0): string => `${bytes.toLocaleString("en-US")} B`;
  console.log(
    `arena  planned ${exact(arenaBytes)}, mapped ${exact(arena?.bytes)}, resident ${exact(arena?.residentBytes)}`,
  );
  const rest = mappings.filter((m) => m !== arena);
  console.log(`rest   ${mb(rest.reduce((n, m) => n + m.residentBytes, 0))}`);
  for (const [name, bytes] of byName(rest).filter(([, n]) => n >= 1e6)) {
    console.log(`  ${mb(bytes).padStart(9)}  ${name}`);
  }
  const { heapTotal, heapUsed, external } = Deno.memoryUsage();
  console.log(`heap   ${mb(heapTotal)}, of which ${mb(heapUsed)} in use, and ${mb(external)} beside it (main thread)`);
  const large = rest.filter((m) => m.name === "").sort((a, b) => b.residentBytes - a.residentBytes).slice(0, 12);
  console.log(`largest without a name: ${large.map((m) => mb(m.residentBytes)).join(", ")}`);
}
