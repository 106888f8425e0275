/** Text out of bytes, or an error where they are not UTF-8: nothing is replaced in silence. @module */

/** Throws a TypeError where bytes are not UTF-8. A mark of the byte order at their beginning is text. */
export const strictUtf8: TextDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The same for files as editors write them: such a mark is none of the text. */
export const strictUtf8File: TextDecoder = new TextDecoder("utf-8", { fatal: true });
