"""Errors of a run of several ranks."""

from lr_exp.errors import UserError


class SharedError(UserError):
    """An error that every rank raises at the same place, which keeps the ranks in lockstep."""


class PeerLostError(UserError):
    """Another rank failed or died, so this one has to stop."""

    def __init__(self, message: str, *, rank: int | None = None, is_reported: bool = False) -> None:
        super().__init__(message)
        self.rank = rank  # the one that died, if known
        self.is_reported = is_reported  # that rank has already printed the reason
