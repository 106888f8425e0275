/** What the planner answers to a choice, by the compiler itself; it runs in a worker of the page.
 * @module */
import { stringify } from "@std/toml";
import { meshPlan, whatFitsDevice } from "../../train/command/plans.ts";
import { readArguments } from "../../train/config/arguments.ts";
import { ConfigError, cut, loadConfig, meshOf } from "../../train/config/config.ts";
import { meshText } from "../../train/report/mesh_plan_text.ts";
import { meshPlanSections } from "../../train/report/mesh_plan_page.ts";

/** What comes back, piece by piece. */
export type Answer =
  /** What is being done. */
  | { readonly kind: "stage"; readonly text: string }
  /** The plan: its heading, and the sections of `--plan-page`. */
  | { readonly kind: "plan"; readonly title: string; readonly html: string; readonly fits: boolean }
  /** What would fit, a line each. */
  | { readonly kind: "fixes"; readonly lines: readonly string[] }
  /** Why there is no plan. */
  | { readonly kind: "refused"; readonly text: string };

/** Plans a choice.
 * @param args as the command line has them. @param tell is given each piece as it is there. */
export async function answer(args: readonly string[], tell: (answer: Answer) => void): Promise<void> {
  try {
    tell({ kind: "stage", text: "reading the choice" });
    const { config, nproc, plan: asked } = await loadConfig([...args, "--dry-run"], () => {
      throw new Error("this page reads no files: write its keys as flags");
    });
    const mesh = meshOf(config, nproc);
    tell({
      kind: "stage",
      text: `compiling the step of a rank, of ${meshText({ mesh: mesh.degrees, ranks: mesh.size })}`,
    });
    const plan = cut(() => meshPlan(config, mesh, asked)), fits = plan.device?.fits ?? true;
    const title = `${plan.model.name} on ${meshText(plan)}`;
    tell({ kind: "plan", title, html: meshPlanSections(plan), fits });
    if (fits) return;
    tell({ kind: "stage", text: "looking for what would fit" });
    tell({ kind: "fixes", lines: cut(() => whatFitsDevice(config, mesh, plan)) });
  } catch (error) {
    const isPlain = error instanceof ConfigError || (error as Error).name.endsWith("Error");
    tell({ kind: "refused", text: isPlain ? (error as Error).message : String(error) });
  }
}

/** The keys of arguments as a TOML file, and the flags that are no keys, which stay on the command line. */
export function tomlOf(args: readonly string[]): { readonly toml: string; readonly flags: readonly string[] } {
  const table: Record<string, Record<string, unknown>> = {}, { entries } = readArguments(args);
  for (const { name, value } of entries) {
    const [section, ...key] = name.split(".");
    (table[section] ??= {})[key.join(".")] = value ?? "None";
  }
  return { toml: stringify(table), flags: args.filter((arg) => /^--[^.=]+(=|$)/.test(arg)) };
}
