/**
 * Which documents a lane reads. Lanes share the shards evenly: as many whole shards each as there are, and of those left
 * over every k-th document, where k lanes have to share one. Neighbours share one, so that a rank, which has lanes
 * side by side, reads few of them; where there are fewer shards than lanes, neighbours have different ones, so that the rows
 * of a batch do.
 * @module
 */
import type { Dataset } from "./dataset.ts";
import { shuffled } from "./order.ts";

/** What a lane reads of one shard. */
export interface Part {
  /** Place of the shard in the dataset. */
  readonly shard: number;
  /** Documents whose index modulo `every` is `offset`. */
  readonly every: number;
  readonly offset: number;
}

/** What lane `lane` of `lanes` reads of `shards` shards, as they lie. */
export function share(lane: number, lanes: number, shards: number): Part[] {
  const whole = Math.floor(shards / lanes), rest = shards % lanes;
  const parts = Array.from({ length: whole }, (_, n) => ({ shard: lane + n * lanes, every: 1, offset: 0 }));
  if (rest === 0) return parts;
  if (whole === 0) {
    const shard = lane % rest;
    return [{ shard, every: Math.ceil((lanes - shard) / rest), offset: Math.floor(lane / rest) }];
  }
  let unit = 1; // neighbours that are not parted: of a power of two, as ranks mostly have one of lanes
  while (lanes % (2 * unit) === 0 && 2 * unit * rest <= lanes) unit *= 2;
  const units = lanes / unit, place = Math.floor(Math.floor(lane / unit) * rest / units);
  const firstOf = (n: number) => unit * Math.ceil(n * units / rest), first = firstOf(place);
  return [...parts, { shard: whole * lanes + place, every: firstOf(place + 1) - first, offset: lane - first }];
}

/** The same in the order of an epoch: a lane has the same documents in each, so that it never has fewer tokens than before. */
export function partsOf(dataset: Dataset, lane: number, lanes: number, epoch: number): Part[] {
  const parts = share(lane, lanes, dataset.shards.length), { shuffle } = dataset;
  return shuffle === undefined ? parts : shuffled([...parts.keys()], shuffle, epoch, lane).map((n) => parts[n]);
}
