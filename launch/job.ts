/** Ranks that were started together, as who started them sees them.
 * @module */

/** A job of ranks. */
export interface Job {
  /** Its exit code, once all have ended: 0 where each has ended well. */
  readonly code: Promise<number>;
  /** What who starts ranks has to say, beside what they say. */
  readonly said: Promise<string>;
  /** Who starts ranks. */
  readonly name: string;
  /** Does it end all ranks by itself when one has failed? */
  readonly endsAll: boolean;
  /** Says a line to the first rank here. */
  tell(line: string): void;
  /** Ends all ranks. */
  kill(signal: "SIGTERM" | "SIGKILL"): void;
  /** Has nothing more to say. */
  close(): Promise<void>;
}
