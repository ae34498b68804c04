"""Errors meant for people: each names the field, what was wrong, and what would be right."""

from __future__ import annotations


class CisbotError(Exception):
    """A failure that a person can act on; its text is shown as it is."""


class FieldError(CisbotError):
    """Bad input in one field.

    Raised for what people write (YAML, TOML, commands). `field` is the path of the value, such as
    `tasks.dump.needs[0]`; `expected` says what would be right; `hint` suggests the nearest mend.
    """

    def __init__(self, field: str, what: str, expected: str = "", hint: str = "") -> None:
        self.field = field
        self.what = what
        self.expected = expected
        self.hint = hint
        super().__init__(self.text())

    def text(self) -> str:
        """One line for chat or terminal."""
        parts = [f"{self.field}: {self.what}"]
        if self.expected:
            parts.append(f"expected {self.expected}")
        line = "; ".join(parts)
        return f"{line}. {self.hint}" if self.hint else line
