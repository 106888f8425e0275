import { arr } from "../../graph/array.ts";
import type { RealType } from "../../train/step.ts";
import { type Runner, testParity } from "../model/parity.ts";
import { NativeSession } from "./native.ts";

function runner(dtype: RealType, tolerance: number, trainedTolerance: number): Runner {
  return {
    name: `the native library in ${dtype}`,
    dtype,
    tolerance,
    trainedTolerance,
    async open(graphs, states) {
      const shapes = new Map(graphs.flatMap((graph) => graph.states.map((s) => [s.name, s.shape])));
      const memory = new Map([...states].map(([name, data]) => [name, arr(shapes.get(name)!, data)]));
      const session = await NativeSession.open(graphs, { threads: 2, memory });
      return {
        run: async (graph, inputs) => {
          const outputs = await session.run(graph, inputs);
          return Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data]));
        },
        read: async (state) => (await session.read(state)).data,
        close: () => session[Symbol.dispose](),
      };
    },
  };
}

testParity(runner("f64", 1e-10, 1e-10));
testParity(runner("f32", 1e-5, 3e-4));
