/** What keys of a configuration are made of: types of values, a key with its default, meaning and unit, a section of keys.
 * @module */
import { z } from "zod";

export const text = z.string().min(1);
export const flag = z.boolean();
export const positive = z.number().positive();
export const notNegative = z.number().min(0);
export const fraction = z.number().min(0).max(1);
export const belowOne = z.number().min(0).lt(1);
export const count = z.int().min(1);
export const countOrZero = z.int().min(0);
export const countOrMinusOne = z.union([z.literal(-1), count]);

/** A name that does not lead out of the dump folder. */
export const within = z.string().regex(/^(?!\/)(?!(.*\/)?\.\.(\/|$))/).meta({ expected: "a relative path without .." });

export function key<S extends z.ZodType>(
  type: S,
  value: z.util.NoUndefined<z.output<S>>,
  description: string,
  unit?: string,
) {
  return type.default(value).meta(unit === undefined ? { description } : { description, unit });
}

/** A size of the model: not set, it is the flavor's. */
export const size = <S extends z.ZodType>(type: S, description: string, unit?: string) =>
  type.nullable().default(null).meta(unit === undefined ? { description } : { description, unit });

export const section = <S extends z.ZodRawShape>(description: string, shape: S) =>
  z.strictObject(shape).prefault({} as never).meta({ description });
