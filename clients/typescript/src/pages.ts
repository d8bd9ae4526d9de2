import type { ApiPromise, PagePromise } from "./types.ts";

interface AnyPage<Item> {
  data: Item[];
  next_cursor: string | null;
}

/** Add iteration over all pages to the promise of the first one. */
export function withPages<Item, Page extends AnyPage<Item>>(
  first: ApiPromise<Page>,
  next: (cursor: string) => ApiPromise<Page>,
): PagePromise<Item, Page> {
  async function* pages(): AsyncGenerator<Page> {
    let page = await first;
    yield page;
    // The change feed always has a cursor. An empty page is its end for now.
    while (page.next_cursor !== null && page.data.length > 0) {
      page = await next(page.next_cursor);
      yield page;
    }
  }
  async function* items(): AsyncGenerator<Item> {
    for await (const page of pages()) yield* page.data;
  }
  return Object.assign(first, { pages, [Symbol.asyncIterator]: items });
}
