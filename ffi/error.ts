/** Errors of the native side: a status and a filled `titan_error` become a `TitanError`.
 * @module */
import { Struct } from "./buffer.ts";
import { Status } from "./symbols.ts";

/** `"INVALID_PROGRAM"`, `"NOT_FINITE"`, ... */
export type StatusName = keyof typeof Status;

/** A native call failed. The message says what happened, what was expected and, where there is one, the fix. */
export class TitanError extends Error {
  /** Tells it from other errors. */
  override readonly name = "TitanError";
  /** What kind of failure it is. */
  readonly status: StatusName;
  /** Kernel of the instruction that is at fault. */
  readonly kernel?: string;
  /** Module path of that instruction, `layers.3.attention`. */
  readonly scope?: string;
  /** Number of the section that ran. */
  readonly section?: number;
  /** Number of the instruction in the program. */
  readonly instruction?: number;

  /** An error of that kind.
   * @param facts where it happened, as far as that is known. */
  constructor(
    status: StatusName,
    message: string,
    facts: Partial<Pick<TitanError, "kernel" | "scope" | "section" | "instruction">> = {},
  ) {
    super(`${message}   (${status.toLowerCase()})`);
    this.status = status;
    this.kernel = facts.kernel;
    this.scope = facts.scope;
    this.section = facts.section;
    this.instruction = facts.instruction;
  }
}

/** The caller's `titan_error`. */
export type ErrorStruct = Struct<"titan_error">;

/** A new `titan_error` for native calls to fill: one for all calls that do not overlap. */
export function errorStruct(): ErrorStruct {
  return new Struct("titan_error");
}

/** Does nothing for `Status.OK`.
 * @throws {TitanError} with what the native side wrote into `error`. */
export function check(status: number, error: ErrorStruct): void {
  if (status === Status.OK) return;
  const name = (Object.keys(Status) as StatusName[]).find((name) => Status[name] === status) ?? "INTERNAL";
  const [section, instruction] = [error.get("section"), error.get("instruction")];
  throw new TitanError(name, error.text("message").replaceAll(/; (?=expected: |fix: )/g, "\n  "), {
    kernel: error.text("kernel") || undefined,
    scope: error.text("scope") || undefined,
    section: section < 0 ? undefined : section,
    instruction: instruction < 0 ? undefined : instruction,
  });
}
