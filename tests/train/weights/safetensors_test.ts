import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { encodeElements, encodeHeader, readHeader } from "../../../train/weights/safetensors.ts";
import { temporaryFolder } from "../../data/fixture.ts";

Deno.test("a header that is written is read again, and its first tensor begins at a multiple of 8", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  const { bytes, header } = encodeHeader([
    { name: "a.weight", dtype: "f64", shape: [2, 3], bytes: 48 },
    { name: "scalar", dtype: "f32", shape: [], bytes: 4 },
    { name: "b", dtype: "bf16", shape: [5], bytes: 10 },
    { name: "c", dtype: "f16", shape: [2], bytes: 4 },
  ], { format: "pt" });
  await Deno.writeFile(path, new Uint8Array([...bytes, ...new Uint8Array(66)]));
  assertEquals(readHeader(path), header);
  assertEquals(header.tensors.get("a.weight")!.begin % 8, 0);
  assertEquals(header.tensors.get("b"), {
    dtype: "BF16",
    shape: [5],
    begin: bytes.length + 52,
    end: bytes.length + 62,
  });
  assertEquals(header.tensors.get("c")!.dtype, "F16");
});

Deno.test("a tensor with a value that its type in the file lacks is named, and another type is proposed", () => {
  const bytes = new Uint8Array(new Float32Array([70000]).buffer);
  const error = assertThrows(
    () => encodeElements(bytes, { name: "norm.weight", from: "f32", to: "f16" }),
    CheckpointError,
    'Cannot write "norm.weight": 70000 is too large for f16',
  );
  assertStringIncludes(error.message, "fix: write bf16");
  assertEquals(encodeElements(bytes, { name: "norm.weight", from: "f32", to: "bf16" }).length, 2);
});

Deno.test("what is no safetensors file, or cannot hold what it says, is refused with what is wrong", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.safetensors`;
  const refused = (content: Uint8Array, says: string) => {
    Deno.writeFileSync(path, content);
    assertThrows(() => readHeader(path), CheckpointError, says);
  };
  const withHeader = (json: string, data = 0, length = json.length) => {
    const bytes = new Uint8Array(8 + json.length + data);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
    bytes.set(new TextEncoder().encode(json), 8);
    return bytes;
  };
  const tensor = (shape: string, offsets: string) => `{"a":{"dtype":"F32","shape":${shape},"data_offsets":${offsets}}}`;
  refused(new Uint8Array(3), "it has 3 bytes");
  refused(withHeader("{}", 0, 99), "its header would be 99 of its 10 bytes long");
  refused(withHeader("{x}"), "its header is no JSON");
  refused(withHeader(tensor("[2]", "[0,8]"), 7), "at bytes 0 to 8 of 7");
  refused(withHeader(tensor("[2]", "[0,4]"), 8), "F32[2] at bytes 0 to 4");
  refused(withHeader(tensor("[-2]", "[0,8]"), 8), "F32[-2]");
  refused(withHeader('{"a":{"dtype":"X","shape":[1],"data_offsets":[0,4]}}', 4), "X[1]");
  Deno.writeFileSync(path, withHeader(tensor("[2]", "[0,8]"), 8));
  assertEquals(readHeader(path).tensors.get("a")!.shape, [2]);
  assertThrows(() => readHeader(`${path}.not`), CheckpointError, "Cannot read");
});
