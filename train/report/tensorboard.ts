/**
 * Event files of TensorBoard, `events.out.tfevents.*`: records of protobuf messages `Event`, each behind its length and
 * with a checksum of both. A record is u64 length, u32 checksum of these 8 bytes, the message, u32 checksum of it, all
 * little-endian. TensorBoard keeps values as f32.
 * @module
 */
import { join } from "@std/path";
import { RecordFile } from "./record_file.ts";

/** What {@linkcode EventFile} takes. */
export interface EventFileOptions {
  /** The first step that the file may have, from 1: later ones of earlier files in the folder were made by a run that was
   * stopped behind its last checkpoint, and TensorBoard drops them. */
  readonly firstStep: number;
  /** Receives, once each, that the file cannot be written, and that it can be again. */
  readonly warn: (text: string) => void;
}

/** A new event file in a folder, which TensorBoard reads behind those that are there, as one run. */
export class EventFile implements Disposable {
  readonly #file: RecordFile;

  /** Makes missing folders and the file. Needs `--allow-read` and `--allow-write`.
   * @throws {Error} when it cannot be written: a run is then not to start. */
  constructor(folder: string, { firstStep, warn }: EventFileOptions) {
    Deno.mkdirSync(folder, { recursive: true });
    const version = record(event({ fileVersion: "brain.Event:2" }));
    this.#file = new RecordFile(join(folder, fileName(folder)), record(event({ step: firstStep, isStart: true })), {
      unit: "reports",
      before: (_, size) => size === 0 ? version : new Uint8Array(),
      warn,
    });
  }

  /** Appends the values of a step under their tags; those that are null are left out. When that fails it says so, and the
   * values come with the next that can be written. */
  write({ step, ...values }: Readonly<Record<string, number | null>>): void {
    this.#file.write(record(event({ step: step ?? 0, values })));
  }

  /** Writes what is kept, or says how much that is: then it is lost. */
  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

/** The folder of a run among those of other runs: its local time as torchtitan writes it, `20261127-1601`.
 * @param goesOn whether an earlier run goes on: then its folder, which is the latest. */
export function eventFolder(runs: string, goesOn: boolean, now: Date = new Date()): string {
  const taken = names(runs).filter((name) => /^\d{8}-\d{4}(\.\d+)?$/.test(name)), latest = taken.at(-1);
  if (goesOn && latest !== undefined) return latest;
  const [year, month, day, hour, minute] = [
    ...[now.getFullYear(), now.getMonth() + 1, now.getDate(), now.getHours(), now.getMinutes()],
  ].map((part) => String(part).padStart(2, "0"));
  const time = `${year}${month}${day}-${hour}${minute}`;
  for (let n = 1;; n++) {
    const name = n === 1 ? time : `${time}.${n}`;
    if (!taken.includes(name)) return name;
  }
}

/** TensorBoard reads the files of a folder in the order of their names, so each new one is named for a later second. */
function fileName(folder: string): string {
  const seconds = names(folder).map((name) => Number(/^events\.out\.tfevents\.(\d{10})\./.exec(name)?.[1] ?? 0));
  const second = Math.max(Math.floor(Date.now() / 1000), ...seconds.map((earlier) => earlier + 1));
  return `events.out.tfevents.${String(second).padStart(10, "0")}.${Deno.pid}`;
}

/** What a folder holds, in the order of names, with 10 behind 9; nothing where there is no folder. */
function names(folder: string): string[] {
  try {
    const found = [...Deno.readDirSync(folder)].map(({ name }) => name);
    return found.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** What an event tells: one of version, start and values. */
interface Told {
  readonly step?: number;
  readonly fileVersion?: string;
  readonly isStart?: boolean;
  readonly values?: Readonly<Record<string, number | null>>;
}

/** The message `Event` of TensorFlow's event.proto and summary.proto, whose numbers of fields these are. */
function event({ step = 0, fileVersion, isStart, values }: Told): Uint8Array {
  return Uint8Array.from([
    ...double(1, Date.now() / 1000), // wall_time, in seconds
    ...integer(2, step),
    ...(fileVersion === undefined ? [] : text(3, fileVersion)),
    ...(values ? bytes(5, summary(values)) : []),
    ...(isStart ? bytes(7, integer(1, 1)) : []), // SessionLog.status = START
  ]);
}

function summary(values: Readonly<Record<string, number | null>>): number[] {
  return Object.entries(values).flatMap(([tag, value]) =>
    value === null ? [] : bytes(1, [...text(1, tag), ...float(2, value)]) // Value.tag and Value.simple_value
  );
}

/** Wire types of protobuf. */
const VARINT = 0, FIXED_64 = 1, BYTES = 2, FIXED_32 = 5;

const key = (field: number, wire: number) => varint(field * 8 + wire);
const integer = (field: number, value: number) => [...key(field, VARINT), ...varint(value)];
const bytes = (field: number, data: readonly number[]) => [...key(field, BYTES), ...varint(data.length), ...data];
const text = (field: number, value: string) => bytes(field, [...new TextEncoder().encode(value)]);
const double = (field: number, value: number) => [...key(field, FIXED_64), ...fixed(8, "setFloat64", value)];
const float = (field: number, value: number) => [...key(field, FIXED_32), ...fixed(4, "setFloat32", value)];

/** A whole number >= 0, seven bits a byte, lowest first. */
function varint(value: number): number[] {
  return value < 128 ? [value] : [value % 128 + 128, ...varint(Math.floor(value / 128))];
}

function fixed(size: number, set: "setFloat32" | "setFloat64" | "setUint32", value: number): Uint8Array {
  const data = new Uint8Array(size);
  new DataView(data.buffer)[set](0, value, true);
  return data;
}

/** A message as it stands in the file. */
function record(message: Uint8Array): Uint8Array {
  const length = fixed(8, "setUint32", message.length);
  return Uint8Array.from([...length, ...checksum(length), ...message, ...checksum(message)]);
}

/** A checksum is stored turned and shifted, as checksums of data that holds checksums are weak. */
function checksum(data: Uint8Array): Uint8Array {
  const crc = crc32c(data);
  return fixed(4, "setUint32", ((crc >>> 15 | crc << 17) + 0xa282ead8) >>> 0);
}

/** What each value of a byte adds to a CRC with Castagnoli's polynomial, bits reversed. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >>> 1 ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC-32C, of RFC 3720. */
export function crc32c(data: Uint8Array): number {
  let crc = ~0;
  for (const byte of data) crc = CRC_TABLE[(crc ^ byte) & 255] ^ crc >>> 8;
  return ~crc >>> 0;
}
