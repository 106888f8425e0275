/** The targets by their names.
 * @module */
import { cpu } from "./cpu.ts";
import { cuda } from "./cuda.ts";
import type { Target } from "./target.ts";

/** Kinds of devices. */
export type DeviceKindName = "cpu" | "cuda";

/** What compiles for each. */
export const targets: Readonly<Record<DeviceKindName, Target>> = { cpu, cuda };
