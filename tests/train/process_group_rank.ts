/** What one rank does in the tests of a process group. Prints one line of JSON.
 * @module */
import { Device } from "../../ffi/device.ts";
import { worldOf } from "../../launch/world.ts";
import { ProcessGroup } from "../../train/process_group.ts";

const [task] = Deno.args, { rank, size } = worldOf()!;
using device = new Device({ threads: 1 });
try {
  await using group = await ProcessGroup.open(device, { rank, size: task === "stranger" ? size + 1 : size });
  if (task === "exchange") {
    const first = [...await group.exchange([rank, 0.5])], second = [...await group.exchange([-rank, rank / 3])];
    console.log(JSON.stringify({ rank, first, second, one: [...await group.exchange([7])] }));
  } else if (rank === 0) {
    group.fail(new Error("a test")); // and so the disposal does not wait for the other, which never comes
    console.log(JSON.stringify({ rank }));
  } else await new Promise((resolve) => setTimeout(resolve, 60_000));
} catch (error) {
  console.error((error as Error).message);
  Deno.exit(1);
}
if (task === "fail") Deno.exit(5);
