/** Minimum cut of a flow network, by shortest augmenting paths (Edmonds & Karp 1972).
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
    for (let path; (path = this.#path(source, sink));) {
      const flow = path.reduce((least, e) => Math.min(least, this.#capacity[e]), Infinity);
      if (flow === Infinity) throw new Error("Cannot cut a network: a path from source to sink has no limit");
      for (const e of path) {
        this.#capacity[e] -= flow;
        this.#capacity[e ^ 1] += flow;
      }
    }
    const behind = new Set([sink]);
    for (const node of behind) {
      for (const e of this.#edges[node]) if (this.#capacity[e ^ 1] > 0) behind.add(this.#to[e]);
    }
    return behind;
  }

  /** Edges of a shortest path with capacity left. */
  #path(source: number, sink: number): number[] | undefined {
    const by = new Map<number, number>([[source, -1]]);
    for (const [node] of by) {
      if (node === sink) break;
      for (const e of this.#edges[node]) {
        if (this.#capacity[e] > 0 && !by.has(this.#to[e])) by.set(this.#to[e], e);
      }
    }
    if (!by.has(sink)) return;
    const path: number[] = [];
    for (let node = sink; node !== source; node = this.#to[path.at(-1)! ^ 1]) path.push(by.get(node)!);
    return path;
  }
}
