"""One way to refuse a value."""


def require(ok: bool, field: str, value: object, expected: str) -> None:
    """Raise `ValueError` naming the field, the value found and what it must be, unless `ok`."""
    if not ok:
        raise ValueError(f"{field} is {value!r}; it must be {expected}")
