/** Runs a long command under a title: one line that moves where there is a terminal, its whole output where it fails. @module */

/** A command that ended with another exit status than 0; the message holds its output. */
export class StepError extends Error {
  override readonly name = "StepError";
}

/** Runs `command` to its end without input.
 * @throws {StepError} where it fails. */
export async function runStep(title: string, command: string[], env: Record<string, string> = {}): Promise<void> {
  const started = performance.now();
  const terminal = Deno.stderr.isTerminal();
  console.error(`${title}: ${command.join(" ")}`);
  const child = new Deno.Command(command[0], {
    args: command.slice(1),
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const output: string[] = [];
  const follow = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      output.push(text);
      const line = text.trimEnd().split("\n").at(-1) ?? "";
      if (terminal) write(`\r\x1b[K  ${line.slice(0, 100)}`);
    }
  };
  const [status] = await Promise.all([child.status, follow(child.stdout), follow(child.stderr)]);
  if (terminal) write("\r\x1b[K");
  if (!status.success) throw new StepError(`${command.join(" ")} ended with ${status.code}:\n${output.join("")}`);
  console.error(`  done in ${((performance.now() - started) / 1000).toFixed(1)} s`);
}

function write(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}
