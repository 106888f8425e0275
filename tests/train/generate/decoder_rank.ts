/** What one rank does in the tests of decoders on a mesh: reads prompts and continues them greedily. Prints one line of JSON.
 * @module */
import { Device } from "../../../ffi/device.ts";
import { worldOf } from "../../../launch/world.ts";
import { Mesh, type MeshOptions } from "../../../parallel/mesh.ts";
import { type DecoderRanks, openDecoder, type ProgramDecoder } from "../../../train/generate/decoder.ts";
import { ProcessGroup } from "../../../train/process_group.ts";
import { randomLlama, someTokens } from "./weights.ts";

/** What a rank found. */
export interface Continued {
  /** Tokens of both sequences, those of the second behind those of the first. */
  readonly tokens: readonly number[];
  /** Logits behind the last of them. */
  readonly logits: readonly number[];
  /** Bytes of caches that the rank holds. */
  readonly cacheBytes: number;
}

/** Reads two prompts and continues both by 12 tokens. */
export async function continued(ranks?: DecoderRanks): Promise<Continued> {
  const { weights } = randomLlama({ numHeads: 4, numKvHeads: 2, vocabSize: 48 });
  using decoder = await openDecoder(weights, { sequences: 2, maxLength: 60, dtype: "f64", threads: 1, ranks });
  const likeliest = (s: number): number => {
    const { logits } = decoder as ProgramDecoder, own = [...logits.subarray(s * 48, (s + 1) * 48)];
    return own.indexOf(Math.max(...own));
  };
  await decoder.extend([someTokens(40, 1), someTokens(3, 2)]);
  const tokens: number[][] = [[], []];
  for (let n = 0; n < 12; n++) {
    const next = [0, 1].map(likeliest);
    next.forEach((token, s) => tokens[s].push(token));
    await decoder.extend(next.map((token) => [token]));
  }
  const { cacheBytes, logits } = decoder as ProgramDecoder;
  return { tokens: tokens.flat(), logits: [...logits], cacheBytes };
}

if (import.meta.main) {
  const { rank, size } = worldOf()!, mesh = new Mesh(JSON.parse(Deno.args[0]) as MeshOptions, size);
  using device = new Device({ threads: 1 });
  await using _group = await ProcessGroup.open(device, { rank, size });
  console.log(JSON.stringify({ rank, ...await continued({ device, mesh, rank }) }));
}
