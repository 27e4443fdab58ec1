"""How many requests may go into finding the points of one body that are refused.

Halving finds k bad points among n in at most k * (2 * ceil(log2(n)) + 2) requests. With many bad
ones that is more than it is worth: a body may cost 64 at most.
"""

from __future__ import annotations

MOST_REQUESTS = 64


class Search:
    """The search in one body, which begins when it is refused, and in the parts it is split into.

    Requests that got no answer are not told of, and cost nothing.
    """

    def __init__(self) -> None:
        self._left = MOST_REQUESTS
        # Parts that are to be sent yet; 0: no search is on.
        self._parts = 0

    def refused(self) -> bool:
        """The head was refused; whether there are requests left to halve it. Each part that waits
        has to be sent once, and the halves are one more."""
        if not self._parts:
            self._left, self._parts = MOST_REQUESTS, 1
        self._left -= 1
        return self._left > self._parts

    def halved(self) -> None:
        """The head was split in two, for whatever reason."""
        if self._parts:
            self._parts += 1

    def taken(self) -> None:
        """The destination has the head."""
        self._left -= 1
        self.done()

    def done(self) -> None:
        """Nothing more is asked about the head."""
        if self._parts:
            self._parts -= 1
