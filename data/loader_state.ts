/** Where a loader stands: a few numbers of each lane, and what the data was, so that it goes on with the same data or not at all.
 * @module */
import type { Dataset } from "./dataset.ts";
import { DataError } from "./error.ts";
import { hashOf } from "./identity.ts";
import { beginning, type Encoder } from "./lane.ts";
import type { LanePlace } from "./mixture.ts";
import { share } from "./share.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Where a loader stands; plain JSON. */
export interface LoaderState {
  readonly version: 2;
  /** What it reads. */
  readonly sources: readonly SourceIdentity[];
  /** Tells the tokenizer from others. */
  readonly tokenizer: string;
  /** Batches that were delivered. */
  readonly step: number;
  /** The lane that the next row comes from. */
  readonly nextLane: number;
  /** Of lanes that give rows to other data ranks alone, the place where this loader began. */
  readonly lanes: readonly LanePlace[];
}

/** What was read of one source. */
export interface SourceIdentity {
  readonly name: string;
  /** Number of its shards. */
  readonly shards: number;
  /** Tells its text and order from others. */
  readonly identity: string;
}

/** A source as a loader has opened it. */
export interface OpenedSource {
  readonly name: string;
  readonly dataset: Dataset;
  readonly weight: number;
  /** Makes tokens of its documents. */
  readonly encoder: Encoder;
}

/** Parts of a state that tell what is read. */
export type LoaderIdentity = Pick<LoaderState, "version" | "sources" | "tokenizer">;

/** What a loader of these sources reads.
 * @param how documents become rows, where places in the data depend on it. */
export function identityOf(sources: readonly OpenedSource[], tokenizer: Tokenizer, how?: unknown): LoaderIdentity {
  const { files, bosId, eosId } = tokenizer;
  return {
    version: 2,
    sources: sources.map(({ name, dataset: { shards, identity } }) => ({
      name,
      shards: shards.length,
      identity: how === undefined ? identity : hashOf([identity, how]),
    })),
    tokenizer: hashOf([files.json, bosId, eosId]),
  };
}

/** The state before the first batch. */
export function beginState(what: LoaderIdentity, sources: readonly OpenedSource[], lanes: number): LoaderState {
  const places = Array.from({ length: lanes }, (_, lane) => ({
    rows: 0,
    cursors: sources.map(({ dataset }) => beginning(dataset, lane, lanes)),
  }));
  return { ...what, step: 0, nextLane: 0, lanes: places };
}

/** The state of all data ranks, out of what each of them says: a lane is where the rank is that reads it, as others leave it behind.
 * @throws {RangeError} when they are not of one loader. */
export function mergeStates(states: readonly LoaderState[]): LoaderState {
  const [first] = states, count = first.lanes.length;
  const same = (s: LoaderState) => s.step === first.step && s.nextLane === first.nextLane && s.lanes.length === count;
  if (!states.every(same)) {
    throw new RangeError("Cannot merge states of loaders that do not stand at one step: expected those of one run");
  }
  const lanes = first.lanes.map((_, lane) =>
    states.map((state) => state.lanes[lane]).reduce((a, b) => b.rows > a.rows ? b : a)
  );
  return { ...first, lanes };
}

/** Compares a state with what a loader reads.
 * @throws {DataError} when it is of something else, or none. */
export function checkState(state: LoaderState, now: LoaderIdentity, lanes: number): void {
  const wrong = (what: string, expected: string, fix: string) =>
    new DataError({ code: "bad_state", what: `Cannot use the loader's state: ${what}`, expected, fix });
  const anew = 'begin the data anew: checkpoint.exclude_from_loading = ["dataloader"]';
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  if (state?.version !== 2 || !Array.isArray(state.lanes) || !Array.isArray(state.sources)) {
    throw wrong("it is not one", "what state() gives, version 2", `pass on the state unchanged, or ${anew}`);
  }
  const named = (sources: readonly SourceIdentity[]) =>
    sources.map(({ name, shards }) => `${JSON.stringify(name)} with ${shards} shards`).join(" and ");
  if (named(state.sources) !== named(now.sources)) {
    throw wrong(
      `it belongs to ${named(state.sources)}`,
      named(now.sources),
      `use the same data, with all its shards, or ${anew}`,
    );
  }
  const other = state.sources.findIndex(({ identity }, n) => identity !== now.sources[n].identity);
  if (other >= 0) {
    throw wrong(
      `it belongs to other text, or to another order of it, than ${JSON.stringify(now.sources[other].name)} has`,
      "the same files, held-out share, data.text_field, data.shuffle, data.shuffle_window, data.packing and debug.seed (options field, " +
        "shuffle, shuffleWindow, packing and seed); where documents are whole or conversations, also seq_len and their template",
      `restore them, or ${anew}`,
    );
  }
  if (state.tokenizer !== now.tokenizer) {
    throw wrong("it belongs to another tokenizer", "the same tokens for the same text", `use that one, or ${anew}`);
  }
  if (state.lanes.length !== lanes) {
    throw wrong(`it has ${state.lanes.length} lanes`, `${lanes} lanes`, `set data.lanes to ${state.lanes.length}`);
  }
  const sound = isCount(state.step) && isCount(state.nextLane) && state.nextLane < lanes &&
    (state.lanes as readonly LanePlace[]).every(({ rows, cursors }, lane) =>
      isCount(rows) && cursors.length === now.sources.length &&
      cursors.every(({ epoch, shard, document, token }, n) =>
        [epoch, document, token].every(isCount) &&
        share(lane, lanes, now.sources[n].shards).some((part) => part.shard === shard)
      )
    );
  if (!sound) throw wrong("a number in it is impossible", "what state() gives", "pass on the state unchanged");
}
