/** Numbers of bytes, and other amounts, as people write them: `160MiB`, `2.5 GB`, `400Gb/s`, `1T`. @module */

/** A number with a unit: kB and its like are powers of 1000, KiB and its like of 1024. */
export const BYTES = /^(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B$/;

/** The bytes that a text says, or undefined where it says none. */
export function bytesOf(text: string): number | undefined {
  const [, number, letter, binary] = BYTES.exec(text) ?? [];
  if (number === undefined) return undefined;
  return Math.floor(Number(number) * (binary ? 1024 : 1000) ** " KMGT".indexOf(letter || " "));
}

/** The bytes a second that a text says, in bytes (`50GB/s`) or in bits (`400Gb/s`); undefined where it says none. */
export function rateOf(text: string): number | undefined {
  const [, amount, unit] = /^(.*)([bB])\/s$/.exec(text) ?? [];
  if (amount === undefined) return undefined;
  const bytes = bytesOf(`${amount}B`);
  return bytes === undefined || unit === "B" ? bytes : bytes / 8;
}

/** A number that a text says, such as `300B` for 300 billion; undefined where it says none. */
export function amountOf(text: string): number | undefined {
  const [, number, letter] = /^(\d+(?:\.\d+)?) ?([KMBT]?)$/.exec(text) ?? [];
  return number === undefined ? undefined : Number(number) * 1000 ** " KMBT".indexOf(letter || " ");
}
