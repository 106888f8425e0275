import { arr } from "../../graph/array.ts";
import { compileGraphs } from "../../train/compile.ts";
import { testFloat8Parity } from "../train/float8_parity.ts";
import { NativeSession } from "./native.ts";

const tolerances = { tensorwise: 1e-5, rowwise: 0.2, rowwise_with_gw_hp: 0.2, mxfp8: 1e-5 };

testFloat8Parity("the native library", tolerances, async (graph, precision, states) => {
  const shapes = new Map(graph.states.map((s) => [s.name, s.shape]));
  const session = await NativeSession.open([graph], {
    threads: 2,
    memory: new Map([...states].map(([name, data]) => [name, arr(shapes.get(name)!, data)])),
    compile: (graphs, options) => compileGraphs(graphs, { ...options, precision }),
  });
  return {
    run: (inputs) => session.run("microbatch", inputs),
    read: async (name) => (await session.read(name)).data,
    write: (name, data) => session.write(name, data),
    close: () => session[Symbol.dispose](),
  };
});
