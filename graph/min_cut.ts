/** Minimum cut of a flow network, by blocking flows (Dinic 1970): as many searches through all of it as shortest paths have lengths.
 * @module */

/** A network of directed edges with capacities between numbered nodes. */
export class FlowNetwork {
  /** Edges in pairs: each with its reverse, whose capacity is the flow that can be taken back. */
  readonly #to: number[] = [];
  readonly #capacity: number[] = [];
  readonly #edges: number[][] = [];

  /** Adds a node and returns its number. */
  node(): number {
    return this.#edges.push([]) - 1;
  }

  /** Adds an edge; its capacity may be Infinity. */
  edge(from: number, to: number, capacity: number): void {
    this.#edges[from].push(this.#to.push(to) - 1);
    this.#capacity.push(capacity);
    this.#edges[to].push(this.#to.push(from) - 1);
    this.#capacity.push(0);
  }

  /** Fills the network with flow and returns the nodes behind the last minimum cut: those that could still reach the sink.
   * @throws {Error} when no cut is finite. */
  behindCut(source: number, sink: number): Set<number> {
    for (let levels; (levels = this.#levels(source)).has(sink);) this.#saturate(source, sink, levels);
    const behind = new Set([sink]);
    for (const node of behind) {
      for (const e of this.#edges[node]) if (this.#capacity[e ^ 1] > 0) behind.add(this.#to[e]);
    }
    return behind;
  }

  /** How many edges with capacity left lead from a node to each that can be reached. */
  #levels(from: number): Map<number, number> {
    const levels = new Map([[from, 0]]);
    for (const [node, level] of levels) {
      for (const e of this.#edges[node]) {
        if (this.#capacity[e] > 0 && !levels.has(this.#to[e])) levels.set(this.#to[e], level + 1);
      }
    }
    return levels;
  }

  /** Sends flow along paths that climb level by level, until there is no such path. */
  #saturate(source: number, sink: number, levels: ReadonlyMap<number, number>): void {
    const next = new Map<number, number>(), path: number[] = [];
    for (let node = source;;) {
      if (node === sink) {
        const flow = path.reduce((least, e) => Math.min(least, this.#capacity[e]), Infinity);
        if (flow === Infinity) throw new Error("Cannot cut a network: a path from source to sink has no limit");
        for (const e of path) {
          this.#capacity[e] -= flow;
          this.#capacity[e ^ 1] += flow;
        }
        const full = path.findIndex((e) => this.#capacity[e] === 0);
        node = this.#to[path[full] ^ 1];
        path.length = full;
        continue;
      }
      const edges = this.#edges[node], level = levels.get(node)! + 1;
      let i = next.get(node) ?? 0;
      while (i < edges.length && !(this.#capacity[edges[i]] > 0 && levels.get(this.#to[edges[i]]) === level)) i++;
      next.set(node, i);
      if (i < edges.length) {
        path.push(edges[i]);
        node = this.#to[edges[i]];
      } else {
        const back = path.pop();
        if (back === undefined) return;
        node = this.#to[back ^ 1];
        next.set(node, next.get(node)! + 1);
      }
    }
  }
}
