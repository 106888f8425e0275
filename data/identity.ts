/** What tells data from other data: short hashes. @module */
import { createHash } from "node:crypto";

/** A short hash of a value that JSON can say. */
export function hashOf(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("hex").slice(0, 16);
}
