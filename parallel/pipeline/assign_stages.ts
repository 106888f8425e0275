/** Which stage of a pipeline each node of a forward graph is on. The gradient of a node is then on the stage of the node itself.
 *
 * 1. A node inside of a block is on the stage of the block.
 * 2. Any other that reads what a stage makes, or inputs together with parameters, is on the last of the stages that it reads from and that
 *    its parameters were given to. Without a word about these it stays as early as it can where a block needs it, and is on the last
 *    stage otherwise.
 * 3. What is left (masks, tables, parameters that are read and cast) needs nothing from before: each stage that uses it makes it itself.
 * @module */
import { Builder } from "../../graph/builder.ts";
import { hasEffect, touchedStates } from "../../graph/edit.ts";
import { stateUse } from "../../graph/facts.ts";
import { type Graph, type Node, producers, type Value } from "../../graph/ir.ts";
import { LayoutError } from "../../graph/layout.ts";
import { scopeText } from "../../graph/print.ts";
import type { Stages } from "./stages.ts";

/** What is known of a value: the stage that makes it, whether it depends on what the host gives, and the stage that was asked for the
 * parameters behind it. */
interface Fact {
  readonly stage?: number;
  readonly data: boolean;
  readonly parameters: boolean;
  readonly asked?: number;
}

const largest = (numbers: readonly (number | undefined)[]): number | undefined => {
  const known = numbers.filter((n) => n !== undefined);
  return known.length > 0 ? Math.max(...known) : undefined;
};

/** The forward graph, each node with its stage; what needs nothing from before is there once for each stage that uses it.
 * @throws {LayoutError} when a block needs what a stage behind its own makes. */
export function assignStages(graph: Graph, stages: Stages): Graph {
  const facts = new Map<Value, Fact>(), made = producers(graph), feeding = feedsBlocks(graph);
  for (const { value } of graph.inputs) facts.set(value, { data: true, parameters: false });
  const stageOf = new Map<Node, number>();
  for (const node of graph.nodes) {
    const fact = factOf(node, node.inputs.map((v) => facts.get(v)!), { stages, feeding });
    if (fact.stage !== undefined) stageOf.set(node, fact.stage);
    node.outputs.forEach((v) => facts.set(v, fact));
  }
  const builder = Builder.extend({ ...graph, nodes: [], outputs: [], activations: [] });
  /** What stands for a value, by the stage that uses it, where each makes its own. */
  const now = new Map<Value, Map<number, Value>>();
  const current = (value: Value, stage: number): Value => {
    const node = made.get(value);
    if (!node) return value;
    const known = now.get(value) ?? new Map<number, Value>(), at = stageOf.get(node) ?? stage;
    now.set(value, known);
    if (!known.has(at)) emit(node, at);
    return known.get(at)!;
  };
  const emit = (node: Node, stage: number): void => {
    const inputs = node.inputs.map((v) => current(v, stage));
    builder.emit(node.op, inputs, node.attrs, { ...node, stage }).forEach((v, i) => {
      const value = node.outputs[i];
      now.set(value, (now.get(value) ?? new Map()).set(stage, v));
    });
  };
  for (const node of graph.nodes) {
    const stage = stageOf.get(node);
    if (stage !== undefined) emit(node, stage);
  }
  for (const { name, value } of graph.outputs) builder.output(name, current(value, stages.count - 1));
  for (const { name, value } of graph.activations) {
    for (const v of now.get(value)?.values() ?? []) builder.activations.push({ name, value: v });
  }
  return builder.finish();
}

/** Nodes that some block needs. */
function feedsBlocks(graph: Graph): Set<Node> {
  const needed = new Set<Value>(), feeding = new Set<Node>();
  for (const node of graph.nodes.toReversed()) {
    if (node.block === undefined && !node.outputs.some((v) => needed.has(v))) continue;
    if (node.block === undefined) feeding.add(node);
    node.inputs.forEach((v) => needed.add(v));
  }
  return feeding;
}

function factOf(
  node: Node,
  inputs: readonly Fact[],
  { stages, feeding }: { readonly stages: Stages; readonly feeding: ReadonlySet<Node> },
): Fact {
  const reads = stateUse(node) === "reads", states = reads ? touchedStates(node) : [];
  const asked = largest([...inputs.map((f) => f.asked), ...states.map((name) => stages.ofParameter(name))]);
  const data = inputs.some((f) => f.data), parameters = reads || inputs.some((f) => f.parameters);
  const from = largest(inputs.map((f) => f.stage)), unplaced = { data, parameters, asked };
  if (reads) return unplaced;
  if (node.block !== undefined) {
    const own = stages.ofBlock(node.block);
    if (from !== undefined && from > own) {
      throw new LayoutError(
        `Cannot cut the model into stages: "${node.op}" of ${
          scopeText(node)
        } is on stage ${own} and reads what stage ` +
          `${from} makes; expected blocks on stages in the order in which they run; change ` +
          `parallelism.module_fqns_per_model_part, or lower parallelism.pipeline_parallel_degree`,
      );
    }
    return { ...unplaced, stage: own };
  }
  const last = stages.count - 1, isPlaced = from !== undefined || data && parameters || hasEffect(node);
  if (!isPlaced) return unplaced;
  const otherwise = feeding.has(node) ? from ?? 0 : asked === undefined ? last : from ?? 0;
  return { ...unplaced, stage: Math.max(from ?? 0, asked ?? otherwise) };
}
