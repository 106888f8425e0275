// Generated from the files of this folder by tools/codegen.ts. Do not edit.
/** Every op: whatever the files of this folder export.
 * @module */
import type { Op } from "../op.ts";
import * as attention from "./attention.ts";
import * as collective from "./collective.ts";
import * as constant from "./constant.ts";
import * as contract from "./contract.ts";
import * as crossEntropy from "./cross_entropy.ts";
import * as cumsum from "./cumsum.ts";
import * as elementwise from "./elementwise.ts";
import * as embedding from "./embedding.ts";
import * as map from "./map.ts";
import * as optimizer from "./optimizer.ts";
import * as random from "./random.ts";
import * as reduce from "./reduce.ts";
import * as rmsnorm from "./rmsnorm.ts";
import * as rope from "./rope.ts";
import * as rows from "./rows.ts";
import * as shape from "./shape.ts";
import * as softmax from "./softmax.ts";
import * as state from "./state.ts";
import * as topK from "./top_k.ts";

const files: readonly Record<string, unknown>[] = [
  attention,
  collective,
  constant,
  contract,
  crossEntropy,
  cumsum,
  elementwise,
  embedding,
  map,
  optimizer,
  random,
  reduce,
  rmsnorm,
  rope,
  rows,
  shape,
  softmax,
  state,
  topK,
];

const isOp = (x: unknown): x is Op => typeof x === "object" && x !== null && "name" in x;

/** The ops by name. */
export const ops: ReadonlyMap<string, Op> = new Map(
  files.flatMap((file) => Object.values(file).flat()).filter(isOp).map((op) => [op.name, op]),
);
