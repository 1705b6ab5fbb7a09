"""The one error of the practice cluster."""

from __future__ import annotations


class LabError(Exception):
    """Say in one sentence what is wrong with the practice cluster, and what to do next."""

    code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
