// Files on disk, for Node.js only.

import { createWriteStream, openAsBlob } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { basename, extname } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";

const TYPES: Readonly<Record<string, string>> = {
  ".jpg": "image/jpeg",
  ".jpeg": "image/jpeg",
  ".png": "image/png",
  ".webp": "image/webp",
  ".avif": "image/avif",
  ".gif": "image/gif",
  ".heic": "image/heic",
  ".heif": "image/heif",
  ".csv": "text/csv",
  ".jsonl": "application/x-ndjson",
  ".ndjson": "application/x-ndjson",
  ".zip": "application/zip",
};

/** Open a file to upload it. It is read while it is sent, so a large file needs no memory. */
export async function openFile(path: string): Promise<File> {
  const type = TYPES[extname(path).toLowerCase()] ?? "application/octet-stream";
  return new File([await openAsBlob(path)], basename(path), { type });
}

/** Write the body of a response to a file while it arrives. The file appears when it is complete. */
export async function saveFile(response: Response, path: string): Promise<void> {
  if (!response.body) throw new TypeError("The response has no body");
  const partial = `${path}.part`;
  try {
    await pipeline(Readable.fromWeb(response.body as ReadableStream), createWriteStream(partial));
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}
