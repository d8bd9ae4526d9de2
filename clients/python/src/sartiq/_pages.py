"""Pages of lists, which load the following pages when you iterate over them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar, cast

from sartiq._model import Model, ResponseInfo

T = TypeVar("T")


class PageModel(Protocol):
    """What every page of the contract has."""

    data: list[Any]
    next_cursor: str | None


class PageContent(Generic[T]):
    """The content of one page.

    Attributes:
        model: The response, with properties that only some lists have.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._page = cast("PageModel", model)

    @property
    def data(self) -> list[T]:
        """Return the items of this page alone."""
        return self._page.data

    @property
    def count(self) -> int | None:
        """Return the number of items on all pages; None if the list has no count."""
        return getattr(self.model, "count", None)

    @property
    def next_cursor(self) -> str | None:
        """Return the cursor of the next page."""
        return self._page.next_cursor

    @property
    def has_next(self) -> bool:
        """Return whether another page follows. The change feed has a cursor on its last page too."""
        return bool(getattr(self.model, "has_more", True)) and self.next_cursor is not None

    @property
    def http(self) -> ResponseInfo:
        """Return the status and headers of the response."""
        return self.model.http


class Page(PageContent[T]):
    """One page of a list. `for item in page` goes through the items of this and all following pages."""

    def __init__(self, model: Model, load: Callable[[str | None], Page[T]]) -> None:
        super().__init__(model)
        self._load = load

    def next_page(self) -> Page[T] | None:
        """Load the next page; return None if this is the last one."""
        return self._load(self.next_cursor) if self.has_next else None

    def pages(self) -> Iterator[Page[T]]:
        """Go through this and all following pages."""
        page: Page[T] | None = self
        while page is not None:
            yield page
            page = page.next_page()

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.data


class AsyncPage(PageContent[T]):
    """One page of a list. `async for item in page` goes through this and all following pages."""

    def __init__(self, model: Model, load: Callable[[str | None], Awaitable[AsyncPage[T]]]) -> None:
        super().__init__(model)
        self._load = load

    async def next_page(self) -> AsyncPage[T] | None:
        """Load the next page; return None if this is the last one."""
        return await self._load(self.next_cursor) if self.has_next else None

    async def pages(self) -> AsyncIterator[AsyncPage[T]]:
        """Go through this and all following pages."""
        page: AsyncPage[T] | None = self
        while page is not None:
            yield page
            page = await page.next_page()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.data:
                yield item
