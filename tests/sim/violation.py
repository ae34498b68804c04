"""What a check raises."""


class Violation(AssertionError):
    """A guarantee is broken."""
