"""A secret that lies in a file: a token, a password, the value of a header.

It is read again when the destination does not accept it any more. What was read never shows up in
a message.
"""

from __future__ import annotations

# No secret is longer.
_LONGEST = 65536


class SecretFile:
    """The secret called `what` ("a token") in the file at `path`, which the configuration names at
    `key`. A token is a single word; `is_line` allows spaces, and `is_text` more than ASCII.

    `value` is None as long as none could be read; `trouble` then says why.
    """

    def __init__(
        self, what: str, path: str, key: str, *, is_line: bool = False, is_text: bool = False
    ) -> None:
        self.key = key
        self.path = path
        self.value: str | None = None
        self.trouble = ""
        self._what = what
        self._is_line = is_line
        self._is_text = is_text

    def read(self) -> bool:
        """Read the file; True if the secret is another one than before. One that was good is kept
        where there is none now: the file is just being replaced, perhaps."""
        before = self.value
        try:
            self.value = self._read()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            if self.value is None:
                self.trouble = f"cannot read {self._what} from {self.path}: {why}"
            return False
        self.trouble = ""
        return self.value != before

    def _read(self) -> str:
        """Raises OSError, and ValueError if it cannot be the secret: never with what was read."""
        with open(self.path, "rb") as stream:
            data = stream.read(_LONGEST)
        try:
            secret = data.decode("utf-8" if self._is_text else "ascii").strip(" \t\r\n")
        except UnicodeDecodeError:
            raise ValueError(
                "it is not UTF-8" if self._is_text else "it is not plain ASCII"
            ) from None
        if not secret:
            raise ValueError("it is empty")
        if not self._is_line and len(secret.split()) > 1:
            raise ValueError("there is more than one word")
        if not secret.isprintable():
            raise ValueError("there is more than one line, or it cannot be printed")
        return secret
