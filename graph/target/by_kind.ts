/** The targets of devices.
 * @module */
import { cpu } from "./cpu.ts";
import { cuda, cudaBefore90 } from "./cuda.ts";
import type { Target } from "./target.ts";

/** Kinds of devices. */
export type DeviceKindName = "cpu" | "cuda";

/** What compiles for a device of a processor level, or of a GPU's architecture, which is `sm_90` unless it is named. */
export function targetOf(
  { kind, level = "sm_90" }: { readonly kind: DeviceKindName; readonly level?: string },
): Target {
  return kind === "cpu" ? cpu : Number(level.slice("sm_".length)) < 90 ? cudaBefore90 : cuda;
}
