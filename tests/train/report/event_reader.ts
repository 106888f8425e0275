/** Reads event files of TensorBoard as its own reader does it: record by record, with their checksums.
 * @module */

/** What an event file holds at one place. */
export interface ReadEvent {
  /** Seconds since 1970. */
  wallTime: number;
  step: number;
  fileVersion?: string;
  /** Is it the start of a run, behind which earlier events of this step and later ones do not count? */
  isStart?: boolean;
  values?: Record<string, number>;
}

/** The events of a file.
 * @throws {Error} at a record that is not whole. */
export function readEvents(data: Uint8Array): ReadEvent[] {
  const events: ReadEvent[] = [], view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let at = 0; at < data.length;) {
    const size = Number(view.getBigUint64(at, true)), message = data.subarray(at + 12, at + 12 + size);
    for (const [bytes, end] of [[data.subarray(at, at + 8), at + 8], [message, at + 12 + size]] as const) {
      if (view.getUint32(end, true) !== masked(bytes)) throw new Error(`the checksum at byte ${end} is wrong`);
    }
    events.push(eventOf(message));
    at += 16 + size;
  }
  return events;
}

/** The events of all files of a folder, in the order of their names. */
export function readFolder(folder: string): ReadEvent[] {
  const names = [...Deno.readDirSync(folder)].filter(({ isFile }) => isFile).map(({ name }) => name).sort();
  return names.flatMap((name) => readEvents(Deno.readFileSync(`${folder}/${name}`)));
}

function eventOf(message: Uint8Array): ReadEvent {
  const event: ReadEvent = { wallTime: 0, step: 0 };
  for (const { field, data, number } of fieldsOf(message)) {
    if (field === 1) event.wallTime = number;
    else if (field === 2) event.step = number;
    else if (field === 3) event.fileVersion = new TextDecoder().decode(data);
    else if (field === 7) event.isStart = [...fieldsOf(data)].some(({ field, number }) => field === 1 && number === 1);
    else if (field === 5) {
      event.values = Object.fromEntries([...fieldsOf(data)].map(({ data }) => {
        const value = new Map([...fieldsOf(data)].map((part) => [part.field, part]));
        return [new TextDecoder().decode(value.get(1)!.data), value.get(2)!.number];
      }));
    } else throw new Error(`an event has no field ${field} that we write`);
  }
  return event;
}

/** The fields of a protobuf message. */
function* fieldsOf(message: Uint8Array): Generator<{ field: number; data: Uint8Array; number: number }> {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength), nothing = new Uint8Array();
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1;; scale *= 128) {
      const byte = message[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  const skip = (size: number) => (at += size) - size;
  while (at < message.length) {
    const key = varint(), field = key >>> 3, wire = key & 7;
    if (wire === 0) yield { field, data: nothing, number: varint() };
    else if (wire === 1) yield { field, data: nothing, number: view.getFloat64(skip(8), true) };
    else if (wire === 5) yield { field, data: nothing, number: view.getFloat32(skip(4), true) };
    else if (wire === 2) {
      const size = varint(), begin = skip(size);
      yield { field, data: message.subarray(begin, begin + size), number: NaN };
    } else throw new Error(`protobuf has no wire type ${wire} that we write`);
  }
}

/** CRC-32C bit by bit, turned right by 15 and shifted by a constant. */
function masked(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  crc = ~crc >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
