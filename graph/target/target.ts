/** What a device is to the compiler. An op's record (`graph/op.ts`) says what is computed; a target says by which means: which kernel
 * runs each op, what that kernel needs and can do, and what is dear or cheap on the device. Passes ask the target that they are given
 * and name none; the first is `graph/target/cpu.ts`.
 * @module */
import type { Graph, Node } from "../ir.ts";
import type { Kernel } from "../kernels.ts";
import type { Recompute } from "../op.ts";
import type { View } from "../view.ts";

/** How a native kernel is called for a node. */
export interface KernelCall {
  /** Its name in the target's table of kernels. */
  readonly kernel: string;
  /** Attributes of the kernel, by name. */
  readonly attrs: Readonly<Record<string, number | bigint | readonly (number | bigint)[]>>;
  /** Puts operands into the order of the kernel table without scratch, `undefined` where one is absent; default: inputs, then
   * outputs. */
  readonly operands?: <T>(inputs: readonly T[], outputs: readonly T[]) => (T | undefined)[];
}

/** How a target runs an op. What is left out is answered safely: the op is then only slower. */
export interface Lowering {
  /** The kernel that runs a node; default: the kernel of the op's own name with the op's attributes. */
  readonly kernel?: (node: Node) => KernelCall;
  /** Bytes of scratch memory for a number of threads; default: none. */
  readonly scratch?: (node: Node, threads: number) => number;
  /** Pairs [output, input] that may share memory when the input dies here; default: none. */
  readonly inPlace?: (node: Node) => readonly (readonly [output: number, input: number])[];
  /** Can its kernel add the output that the op's record calls `into` into memory of states? Default: no. */
  readonly accumulates?: boolean;
  /** Operands (inputs, then outputs) as the kernel takes them, or why it cannot follow their strides. Default: leading dims are
   * collapsed as the op's `dims` says with `...`, and the last dim must be dense. */
  readonly views?: (node: Node, views: readonly View[]) => readonly View[] | string;
  /** Are its operands rounded by casts in front of it, where it multiplies in a narrower type? Others may share these. Default: its
   * kernel rounds them as it loads them. */
  readonly castsOperands?: boolean;
  /** Are its results stored as what it multiplies in, all that its record lets be? Default: those that its record names. */
  readonly castsResults?: boolean;
}

/** How a target runs ops, by the op's name. What is not among them it cannot run. */
export type Lowerings = Readonly<Record<string, Lowering | undefined>>;

/** A rule of pass `fuse`. */
export type Fusion =
  | "castsIntoProducts"
  | "ropeIntoAttention"
  | "residualNorms"
  | "joinProducts"
  | "accumulateInPlace"
  | "castsIntoKernels"
  | "joinUpdates"
  | "fuseMaps";

/** What work takes: seconds of a node = FLOPs / rate + bytes of its operands / bandwidth. Only the ratios matter. */
export interface Costs {
  /** FLOPs in a second, by the kind of work. */
  readonly flopsPerSecond: Readonly<Record<Recompute, number>>;
  /** Bytes of operands in a second. */
  readonly bytesPerSecond: number;
}

/** Chunks into which pass `tile` cuts a head with its loss. */
export interface Chunks {
  /** Rows of a chunk (a row is one token's logits, over the whole vocabulary). Of a slice of the vocabulary as many more as it is
   * smaller, so that ranks exchange less often. */
  readonly rows: number;
  /** Most chunks: `rows` is doubled until there are no more, so that the size of a program does not grow with the batch. */
  readonly chunks: number;
}

/** A device as the passes see it. */
export interface Target {
  /** As programs name it, in at most 16 ASCII letters. */
  readonly name: string;
  /** Its kernels by name, with their numbers in programs. */
  readonly kernels: Readonly<Record<string, Kernel>>;
  /** How it runs each op. */
  readonly lowerings: Lowerings;
  /** The call that copies one operand to the place of another. */
  readonly copy: KernelCall;
  /** The rules of `fuse` that pay. */
  readonly fusions: ReadonlySet<Fusion>;
  /** A rule of its own, before those; default: none. */
  readonly ownFusion?: (graph: Graph) => Graph;
  /** Most steps of a `map` program. */
  readonly mapSteps: number;
  /** How heads are tiled. */
  readonly chunks: Chunks;
  /** Every buffer starts at a multiple of this, in bytes. */
  readonly alignment: number;
  /** The arena is a multiple of this, in bytes: what a system gives, so that what is planned is what the process has. */
  readonly page: number;
  /** What work takes, for choices between making a value again and keeping it. */
  readonly costs: Costs;
  /** Bytes of the device's memory that the graphs of a rank take beside the arena, by what they are for; default: none that are known. */
  readonly memoryBeside?: (graphs: readonly Graph[]) => Readonly<Record<string, number>>;
}

/** How a target runs a node.
 * @throws {TypeError} when it cannot. */
export function callOf({ name, lowerings }: Target, node: Node): KernelCall {
  const lowering = lowerings[node.op];
  if (!lowering) {
    throw new TypeError(
      `Cannot run "${node.op}" on target "${name}": it has no kernel there; expected a graph of one rank alone, of ops with an entry ` +
        `in graph/target/${name}/`,
    );
  }
  return lowering.kernel?.(node) ?? { kernel: node.op, attrs: node.attrs as KernelCall["attrs"] };
}

/** `views` of a kernel that follows any strides. */
export const anyViews = (_node: Node, views: readonly View[]): readonly View[] => views;
