/** The attributes of ops: what each is called, holds and means. An op's record lists its own; what is not listed, or of another type, is
 * refused where a node is made.
 * @module */
import type { Attr, Attrs } from "./ir.ts";

/** What an attribute holds. `rank integer`: a whole number that may depend on the rank until the graph is that of one (`RankNumber` in
 * `parallel/rank_graph.ts`). */
export type AttrType =
  | "flag"
  | "number"
  | "integer"
  | "integers"
  | "text"
  | "texts"
  | "sizes"
  | "types"
  | "rank integer"
  | "rank integers"
  | "program";

/** One attribute of an op. */
export interface Attribute {
  readonly type: AttrType;
  /** What it means. */
  readonly doc: string;
  /** The texts that it may be; default: any. */
  readonly values?: readonly string[];
  /** May it be left out? Default: no. */
  readonly optional?: true;
  /** The pass that alone writes it, where it is what that pass leaves for others; models do not give it. */
  readonly writer?: string;
  /** A size that is smaller on a rank that has a slice: the shape of the output, sizes by label, or the size along one label. */
  readonly local?: "output" | "labels" | { readonly label: string };
}

/** The attributes of an op, by name. */
export type Schema = Readonly<Record<string, Attribute>>;

/** Of products and attention. */
export const ROUND: Schema = {
  round: {
    type: "text",
    values: ["bf16"],
    optional: true,
    writer: "precision",
    doc: "the type that operands are rounded to as they come",
  },
};

/** Of ops that may store what they make as bf16. */
export const STORED: Schema = {
  bf16: { type: "integers", optional: true, writer: "precision, fuse", doc: "the outputs that are stored as bf16" },
};

/** Of ops that may store what they make as float8. */
export const STORED_FLOAT8: Schema = {
  f8e4m3: { type: "integers", optional: true, writer: "fuse", doc: "the outputs that are stored as f8e4m3" },
  f8e5m2: { type: "integers", optional: true, writer: "fuse", doc: "the outputs that are stored as f8e5m2" },
};

/** Of ops whose kernel can add into state. */
export const ADDED: Schema = {
  into: { type: "texts", optional: true, writer: "fuse", doc: "the states that it is added into" },
  begin: { type: "flag", optional: true, writer: "fuse", doc: "may the first microbatch of a step overwrite them?" },
};

/** Of what ranks do together, or each by its place. */
export const RANKS: Schema = {
  axes: {
    type: "texts",
    optional: true,
    writer: "partition",
    doc: "axes of the mesh whose ranks take part, outermost first",
  },
  size: { type: "integer", doc: "how many ranks these are" },
};

/** Of what ranks do together. */
export const GROUP: Schema = {
  ...RANKS,
  among: {
    type: "integers",
    optional: true,
    writer: "hold",
    doc: "of the ranks along the axes, the places of those that take part",
  },
  group: { type: "integers", optional: true, writer: "rank", doc: "these ranks, in order" },
};

/** Of ops on a slice of what they count along. */
export const SLICE: Schema = {
  start: { type: "rank integer", optional: true, writer: "partition", doc: "where this rank's slice begins" },
  whole: { type: "integer", optional: true, writer: "partition", doc: "how many there are in all slices" },
};

const isInteger = (x: Attr): boolean => Number.isInteger(x);
const isRankInteger = (x: Attr): boolean => isInteger(x) || typeof x === "object" && "terms" in x;
const isList = (x: Attr, of: (item: Attr) => boolean): boolean => Array.isArray(x) && x.every(of);
const isText = (x: Attr): boolean => typeof x === "string";

const fits: Readonly<Record<AttrType, (x: Attr) => boolean>> = {
  flag: (x) => typeof x === "boolean",
  number: (x) => typeof x === "number",
  integer: isInteger,
  integers: (x) => isList(x, isInteger),
  text: isText,
  texts: (x) => isList(x, isText),
  types: (x) =>
    isList(x, (t) => typeof t === "object" && "dtype" in t && isText(t.dtype) && isList(t.shape, isInteger)),
  sizes: (x) => typeof x === "object" && !Array.isArray(x) && Object.values(x).every(isInteger),
  "rank integer": isRankInteger,
  "rank integers": (x) => isList(x, isRankInteger),
  program: (x) => typeof x === "object" && ["constants", "steps", "results"].every((key) => key in x),
};

/** What is wrong with the attributes of a node, in words; `undefined` where they are as the schema says. */
export function attributeFault(schema: Schema, attrs: Attrs): string | undefined {
  for (const name in attrs) {
    const known = schema[name], value = attrs[name];
    if (known === undefined) {
      const names = Object.keys(schema);
      return `attribute "${name}" is none of ${names.length > 0 ? names.join(", ") : "its own: it has none"}`;
    }
    // What is undefined is left out.
    if (value === undefined ? !known.optional : !fits[known.type](value)) {
      return `attribute "${name}" is ${JSON.stringify(value)}, expected ${known.type} (${known.doc})`;
    }
    if (value !== undefined && known.values && !known.values.includes(value as string)) {
      return `attribute "${name}" is "${value}", expected ${known.values.join(" or ")} (${known.doc})`;
    }
  }
  for (const name in schema) {
    if (!schema[name].optional && !(name in attrs)) {
      return `attribute "${name}" is missing, expected ${schema[name].type} (${schema[name].doc})`;
    }
  }
}

const ofRank = new WeakMap<Schema, readonly string[]>();

/** Does an attribute still depend on the rank? */
export function dependsOnRank(schema: Schema, attrs: Attrs): boolean {
  let names = ofRank.get(schema);
  if (!names) ofRank.set(schema, names = Object.keys(schema).filter((name) => schema[name].type.startsWith("rank")));
  return names.some((name) => {
    const value = attrs[name];
    return Array.isArray(value) ? value.some((x) => typeof x === "object") : typeof value === "object";
  });
}
