/** A hub on this machine, and a client of it. @module */
import { Hub } from "../../../data/hub/hub.ts";
import { type Patience, type RequestOptions, Requests } from "../../../data/hub/requests.ts";
import type { HubServer } from "../hub_server.ts";

/** Patience for servers on this machine, some of whose answers never come. */
export const HASTE: Patience = { attempts: 5, answer: 2000, silence: 2000, firstWait: 1, longestWait: 2000 };

/** Patience where all answers come, however busy the machine is. */
export const PATIENCE: Patience = { ...HASTE, answer: 120_000, silence: 120_000 };

/** A client of a server. */
export function clientOf(server: HubServer, options: RequestOptions & { readonly token?: string } = {}): Hub {
  const settings = { endpoint: server.endpoint, token: options.token, cache: "", own: "", offline: false };
  return new Hub(new Requests(settings, { patience: HASTE, ...options }));
}

/** Bytes that no other number gives, and that do not repeat. */
export function someBytes(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let x = seed * 2654435761 >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    x ^= x << 13, x ^= x >>> 17, x ^= x << 5;
    bytes[i] = x;
  }
  return bytes;
}

/** All chunks as one. */
export async function joined(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for await (const chunk of chunks) parts.push(chunk.slice());
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
