/** Programs that hand over what a stage makes: for the next one, or for the one before, in one exchange between two ranks, or by a copy
 * where both are on the same rank; and for the host, in one exchange of all ranks.
 * @module */
import { Builder } from "../../graph/builder.ts";
import type { Graph, State, Type } from "../../graph/ir.ts";
import type { Boundary, StageResult } from "./cut_stages.ts";
import type { Message } from "./messages.ts";

/** What a transfer is called: `send gradient of microbatch.3`. */
export function transferName(way: "send" | "receive" | "pass", { what }: Pick<Message, "what">, slot: string): string {
  return `${way} ${what} of ${slot}`;
}

/** The graph of one rank that sends or receives, in one exchange with the rank on the other side.
 * @param boundary with the states as the rank has them. @param ranks both ranks, that which sends first. @param axes along which they lie. */
export function exchangeGraph(
  way: "send" | "receive",
  what: Message["what"],
  { boundary: { sent, received }, ranks, axes }: {
    readonly boundary: Boundary;
    readonly ranks: readonly [number, number];
    readonly axes: readonly string[];
  },
): Graph {
  const own = way === "send" ? sent : received, group = [...ranks].sort((a, b) => a - b);
  const [from, to] = ranks.map((rank) => group.indexOf(rank));
  const builder = builderOf(own, transferName(way, { what }, own[0].of!), own[0].of!);
  builder.origin = {
    scope: way === "send" ? `to rank ${ranks[1]}` : `from rank ${ranks[0]}`,
    phase: "forward",
  };
  const types = own.map(({ dtype, shape }: Type) => ({ dtype, shape }));
  const attrs = {
    ...{ size: 2, axes, group, member: way === "send" ? from : to },
    ...{ from: own.map(() => from), to: own.map(() => to), types: types as never },
  };
  const values = builder.emit("exchange", way === "send" ? own.map((s) => builder.read(s.name)) : [], attrs);
  values.forEach((value, i) => builder.assign(own[i].name, value));
  return builder.finish();
}

/** The graph of a rank that has both sides. */
export function passGraph(what: Message["what"], { sent, received }: Boundary): Graph {
  const slot = received[0].of!;
  const builder = builderOf([...sent, ...received], transferName("pass", { what }, slot), slot);
  builder.origin = { scope: `${what} on the same rank`, phase: "forward" };
  sent.forEach(({ name }, i) => builder.assign(received[i].name, builder.read(name)));
  return builder.finish();
}

/** What hands over the results of a graph in stages is called: `result of decode`. */
export function resultName(graph: string): string {
  return `result of ${graph}`;
}

/** The graph of one rank in the exchange by which all ranks, and their hosts, get what the last stage has.
 * @param results with the states as the rank that has the last stage has them. @param options `ranks`: all, in order; `from`: the one that
 * sends; `rank`: the one that runs it; `axes` along which they lie. */
export function resultGraph(
  graph: string,
  results: readonly StageResult[],
  { ranks, from, rank, axes }: {
    readonly ranks: readonly number[];
    readonly from: number;
    readonly rank: number;
    readonly axes: readonly string[];
  },
): Graph {
  const states = results.map((r) => r.state), isSender = rank === from, sender = ranks.indexOf(from);
  const builder = new Builder(resultName(graph), isSender ? states : [], "rank");
  if (isSender) builder.slot = states[0].of;
  builder.origin = { scope: isSender ? "to all ranks" : `from rank ${from}`, phase: "forward" };
  const others = ranks.flatMap((_, member) => member === sender ? [] : [member]);
  const messages = states.flatMap(({ dtype, shape }) => others.map((to) => ({ to, type: { dtype, shape } })));
  const own = isSender ? states.map(({ name }) => builder.read(name)) : [];
  const values = builder.emit("exchange", own.flatMap((value) => others.map(() => value)), {
    ...{ size: ranks.length, axes, group: ranks, member: ranks.indexOf(rank) },
    ...{ from: messages.map(() => sender), to: messages.map((m) => m.to), types: messages.map((m) => m.type) as never },
  });
  results.forEach(({ name }, i) => builder.output(name, (isSender ? own : values)[i]));
  return builder.finish();
}

function builderOf(states: readonly State[], name: string, slot: string): Builder {
  const builder = new Builder(name, states, "rank");
  builder.slot = slot;
  return builder;
}
