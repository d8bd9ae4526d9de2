import type { FileInput } from "./types.ts";

/** Return the bytes as a Blob, which can be sent again after a lost connection. */
export function toBlob(file: FileInput): Blob {
  // The types of Blob exclude views of shared memory, which do not occur here.
  return file instanceof Blob ? file : new Blob([file as BlobPart]);
}

/** Whether a value is sent as a file in a form. */
export function isFile(value: unknown): value is FileInput {
  return value instanceof Blob || value instanceof ArrayBuffer || ArrayBuffer.isView(value);
}
