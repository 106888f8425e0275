/** Numbers of bytes as people write them: `160MiB`, `2.5 GB`. @module */

/** A number with a unit: kB and its like are powers of 1000, KiB and its like of 1024. */
export const BYTES = /^(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B$/;

/** The bytes that a text says, or undefined where it says none. */
export function bytesOf(text: string): number | undefined {
  const [, number, letter, binary] = BYTES.exec(text) ?? [];
  if (number === undefined) return undefined;
  return Math.floor(Number(number) * (binary ? 1024 : 1000) ** " KMGT".indexOf(letter || " "));
}
