"""What goes wrong, said so that the reader can act: the call, its need, what it got, the remedy."""

from typing import NoReturn


class JaxcamError(ValueError):
    """A call that cannot give a correct answer. The message says what to do instead."""


class NotProved(JaxcamError):
    """An engine asked for by name whose condition could not be proved for this score."""


class JaxcamWarning(UserWarning):
    """A correct answer that is probably not the one that was wanted."""


class FaultWarning(JaxcamWarning):
    """A fault of this library that it could go around: the answer is correct, and slower."""


def fail(call: str, *, needs: object, got: object, remedy: object) -> NoReturn:
    """Raise a `JaxcamError` in the library's one form of message."""
    raise JaxcamError(message(call, needs=needs, got=got, remedy=remedy))


def message(call: str, *, needs: object, got: object, remedy: object) -> str:
    """Word a problem: ``call: needs …; got …. Remedy.``"""
    return f"{call}: needs {needs}; got {got}. {remedy}"
