import { assertEquals } from "@std/assert";
import { Builder, f32 } from "../../graph/builder.ts";
import { ownersOf } from "../../graph/owners.ts";
import { Tensor } from "../../graph/tensor.ts";

Deno.test("what is made of one parameter and constants has an owner, what is made of two or of an input has none", () => {
  const builder = new Builder("g", [
    { name: "w", kind: "parameter", ...f32(2, 3) },
    { name: "v", kind: "parameter", ...f32(2, 3) },
    { name: "m", kind: "moment", of: "w", ...f32(2, 3) },
  ]);
  const read = (name: string) => new Tensor(builder, builder.read(name)),
    x = new Tensor(builder, builder.input("x", f32(2, 3)));
  const [w, v, m] = ["w", "v", "m"].map(read), largest = w.abs().max(), scaled = w.mul(2).div(largest);
  const values = [w, largest, scaled, v.add(1), w.mul(v), w.mul(x), m.add(1), w.constant(1, [2])];
  const owners = ownersOf(builder.finish());
  assertEquals(values.map((t) => owners.get(t.value)), [
    "w",
    "w",
    "w",
    "v",
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});
