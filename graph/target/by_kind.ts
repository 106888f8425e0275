/** The targets by their names.
 * @module */
import { cpu } from "./cpu.ts";
import { cuda, cudaBefore90 } from "./cuda.ts";
import type { Target } from "./target.ts";

/** Kinds of devices. */
export type DeviceKindName = "cpu" | "cuda";

/** What compiles for each. */
export const targets: Readonly<Record<DeviceKindName, Target>> = { cpu, cuda };

/** What compiles for a device of a processor level, or of a GPU's architecture, such as `sm_90`. */
export function targetOf({ kind, level }: { readonly kind: DeviceKindName; readonly level: string }): Target {
  return kind === "cuda" && Number(level.slice("sm_".length)) < 90 ? cudaBefore90 : targets[kind];
}
