/** What the checkpoints of a run would take, without writing one: bytes, files, and how long a save lasts.
 * @module */
import { numel, type State } from "../../graph/ir.ts";
import type { Layout } from "../../graph/layout.ts";
import type { Mesh } from "../../parallel/mesh.ts";
import { bytesText, table } from "../report/plan_report.ts";
import { storedBytes, type StoredType } from "../typed_array.ts";
import { lastingKinds } from "./manifest.ts";
import { assignBoxes, type StoredState } from "./pieces.ts";

/** What one save writes. Bytes are those of tensors; headers and texts add less than a thousandth. */
export interface SavePlan {
  readonly bytes: number;
  /** `manifest.json` and `state.json` among them. */
  readonly files: number;
  /** Bytes that the rank with the fewest writes, and the one with the most. */
  readonly leastOfRank: number;
  readonly mostOfRank: number;
  /** How long it lasts at least; null where no speed was given. */
  readonly seconds: number | null;
}

/** The two kinds of checkpoints. */
export interface CheckpointPlan {
  readonly ranks: number;
  /** Bytes a second that all ranks together write into the folder; null: not given. */
  readonly diskSpeed: number | null;
  /** All that a run goes on from. */
  readonly full: SavePlan;
  /** Parameters alone. */
  readonly model: SavePlan;
}

/** What is planned. */
export interface CheckpointPlanOptions {
  /** Whole states, of the element types that are stored; those that do not outlive a run are left out. */
  readonly states: Iterable<State>;
  layoutOf(state: StoredState): Layout;
  readonly mesh: Mesh;
  /** Element type of parameters that are saved alone; default: that of each. */
  readonly exportDtype?: StoredType;
  /** Bytes a second. */
  readonly diskSpeed?: number;
}

/** Plans the saves of a run: the shares of ranks are those that a save writes. */
export function planCheckpoints(options: CheckpointPlanOptions): CheckpointPlan {
  const { mesh, exportDtype, diskSpeed = null } = options;
  const lasting = [...options.states].filter(({ kind }) => lastingKinds.includes(kind));
  const parameters = lasting.filter(({ kind }) => kind === "parameter")
    .map((state) => exportDtype ? { ...state, dtype: exportDtype } : state);
  const plan = (states: readonly StoredState[]): SavePlan => {
    const load = new Float64Array(mesh.size);
    const sizes = states.map(({ dtype }) => storedBytes[dtype]), written = new Map<string, Set<number>>();
    for (const { kind } of states) written.set(kind, new Set());
    const writers = states.map(({ kind }) => written.get(kind)!);
    assignBoxes(states, (state) => options.layoutOf(state), mesh, (state, box, writer) => {
      load[writer] += numel(box.sizes) * sizes[state];
      writers[state].add(writer);
    });
    const bytes = load.reduce((a, b) => a + b, 0);
    return {
      bytes,
      files: 2 + [...written.values()].reduce((n, ranks) => n + ranks.size, 0),
      leastOfRank: load.reduce((a, b) => Math.min(a, b)),
      mostOfRank: load.reduce((a, b) => Math.max(a, b)),
      seconds: diskSpeed === null ? null : bytes / diskSpeed,
    };
  };
  return { ranks: mesh.size, diskSpeed, full: plan(lasting), model: plan(parameters) };
}

/** The rows of both kinds: what, and what it takes. */
export function checkpointRows({ ranks, full, model }: CheckpointPlan): readonly (readonly [string, string])[] {
  const row = ({ bytes, files, leastOfRank, mostOfRank, seconds }: SavePlan) => {
    const each = [...new Set([leastOfRank, mostOfRank].map(bytesText))].join(" to ");
    const time = seconds === null ? "" : `, ${secondsText(seconds)} at least`;
    return `${bytesText(bytes)} in ${files.toLocaleString("en-US")} files${
      ranks > 1 ? `, ${each} by each rank` : ""
    }${time}`;
  };
  return [["all that a run goes on from", row(full)], ["parameters alone", row(model)]];
}

/** At which speed they are written, in a line. */
export function diskSpeedText({ ranks, diskSpeed }: CheckpointPlan): string {
  if (diskSpeed === null) return "no time is known: --disk-speed 2GB/s tells how long a save takes";
  const together = ranks > 1 ? " by all ranks together" : "";
  return `at ${bytesText(diskSpeed)}/s into checkpoint.folder${together}`;
}

/** The plan as text. */
export function checkpointPlanText(plan: CheckpointPlan): string {
  return `Checkpoint (bytes of tensors; ${diskSpeedText(plan)})\n${table(checkpointRows(plan))}`;
}

/** A time in the unit that suits it. */
function secondsText(seconds: number): string {
  if (seconds < 100) return `${seconds.toPrecision(2)} s`;
  return seconds < 6000 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
