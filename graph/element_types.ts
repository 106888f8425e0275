// Generated from csrc/element_types.def by tools/codegen.ts. Do not edit.
/** How elements lie in memory: the types that programs have, and those of them that kernels take.
 * @module */

/** A type that tensors of a program may have. */
export type ElementType =
  | "f32"
  | "f64"
  | "i32"
  | "bytes"
  | "bf16"
  | "f16"
  | "f8e4m3"
  | "f8e5m2"
  | "i64"
  | "u8";

/** What kernels compute in, what is only a way to store, or scratch. */
export type ElementKind =
  | "real"
  | "integer"
  | "bytes"
  | "stored_real"
  | "stored_integer";

/** The types: number in a program, size and kind. */
export const elementTypes: {
  readonly [T in ElementType]: { readonly number: number; readonly bits: number; readonly kind: ElementKind };
} = {
  f32: { number: 0, bits: 32, kind: "real" },
  f64: { number: 1, bits: 64, kind: "real" },
  i32: { number: 2, bits: 32, kind: "integer" },
  bytes: { number: 3, bits: 8, kind: "bytes" },
  bf16: { number: 4, bits: 16, kind: "stored_real" },
  f16: { number: 5, bits: 16, kind: "stored_real" },
  f8e4m3: { number: 6, bits: 8, kind: "stored_real" },
  f8e5m2: { number: 7, bits: 8, kind: "stored_real" },
  i64: { number: 8, bits: 64, kind: "stored_integer" },
  u8: { number: 9, bits: 8, kind: "stored_integer" },
};

/** A type that some kernel takes, as values of graphs have it. */
export type DType =
  | "f32"
  | "f64"
  | "i32"
  | "bf16"
  | "f8e4m3"
  | "f8e5m2";

/** All of these. */
export const dtypes: readonly DType[] = ["f32", "f64", "i32", "bf16", "f8e4m3", "f8e5m2"];
