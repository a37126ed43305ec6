// Types of decode.mjs for TypeScript.
import type { Picture } from "./classifier.mjs";

/** Upright RGB of a picture's bytes; rejects with an InputError that says why there is none. */
export function decode(file: Uint8Array | ArrayBuffer): Promise<Picture>;
