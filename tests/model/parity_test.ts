import { arr } from "../../graph/array.ts";
import { interpret, type Memory } from "../../graph/interpret.ts";
import { verify } from "../../graph/verify.ts";
import { testParity } from "./parity.ts";

testParity({
  name: "the interpreter",
  dtype: "f64",
  tolerance: 1e-10,
  open(graphs, states) {
    const byName = new Map(graphs.map((graph) => [graph.name, verify(graph)]));
    const shapes = new Map(graphs.flatMap((graph) => graph.states.map((s) => [s.name, s.shape])));
    const memory: Memory = new Map([...states].map(([name, data]) => [name, arr(shapes.get(name)!, data)]));
    return {
      run(name, inputs) {
        const outputs = interpret(byName.get(name)!, { inputs, memory });
        return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data]));
      },
      read: (name) => memory.get(name)!.data,
      close() {},
    };
  },
});
