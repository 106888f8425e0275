/** What the processor of this machine has that kernels are compiled for. @module */

/** The features by which processor levels differ, in one text; undefined where it cannot be known: the system does not tell, or this program
 * may not read what it tells, which takes leave to do all. */
export function processorFeatures(): string | undefined {
  try {
    const text = Deno.readTextFileSync("/proc/cpuinfo");
    const [, all] = /^(?:flags|Features)\s*:(.*)$/m.exec(text) ?? [];
    return all?.split(" ").filter((name) => /^(avx|fma|bmi|amx|sve|bf16|i8mm)/.test(name)).sort().join(" ");
  } catch {
    return undefined;
  }
}
