"""Do one thing while another is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def beside(work: Callable[[], T]) -> Callable[[], T]:
    """Begin `work` in a thread; what is returned waits for its end, and returns or raises what it did."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised again in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=body, name="beside", daemon=True)
    thread.start()

    def finished() -> T:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    return finished
