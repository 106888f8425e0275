import { assertEquals } from "@std/assert";
import { arenaOf, byName, parseSmaps } from "../../tools/process_memory.ts";

const smaps = `7f01-7f05 rw-p 00000000 00:00 0 
Size:                 16 kB
KernelPageSize:        4 kB
Rss:                  12 kB
VmFlags: rd wr mr mw me ac hg
7f10-7f20 r-xp 00001000 08:01 42                         /usr/lib/a file.so.1
Size:                 64 kB
Rss:                   8 kB
7f30-7f34 rw-p 00000000 00:00 0                          [anon:libtitan arena]
Size:                 16 kB
Rss:                  16 kB
7f40-7f41 rw-p 00001000 08:01 42                         /usr/lib/a file.so.1
Size:                  4 kB
Rss:                   4 kB
`;
const mappings = parseSmaps(smaps);

Deno.test("mappings have their name, their size and what of it is in memory", () => {
  assertEquals(mappings.map(({ name, bytes, residentBytes }) => [name, bytes / 1024, residentBytes / 1024]), [
    ["", 16, 12],
    ["/usr/lib/a file.so.1", 64, 8],
    ["[anon:libtitan arena]", 16, 16],
    ["/usr/lib/a file.so.1", 4, 4],
  ]);
});

Deno.test("the arena is found by its name, and by its size where the kernel keeps no names", () => {
  assertEquals(arenaOf(mappings, 16384)?.residentBytes, 16384);
  assertEquals(arenaOf(mappings.filter(({ name }) => !name.startsWith("[anon:")), 16384)?.residentBytes, 12288);
  assertEquals(arenaOf(mappings, 4096), undefined);
});

Deno.test("the rest is summed by name, largest first", () => {
  assertEquals(byName(mappings), [["[anon:libtitan arena]", 16384], ["without a name", 12288], ["a file.so.1", 12288]]);
});
