"""What can go wrong with the practice cluster itself."""

from __future__ import annotations

from tasks.cluster.errors import Failed


class LabError(Failed):
    """The practice cluster cannot do what was asked; where it stands is known."""


class LabRefused(LabError):
    """Nothing was changed: it is not up, something is missing, or the question was wrong."""

    code = 2
