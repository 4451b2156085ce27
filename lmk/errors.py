"""Every error lmk raises on purpose, as one tree. The branch says whose fault it is.

    LmkError                    one-line cause, one-line remedy, exit code
    ├── UserError      exit 2   the user can mend it; raised before a target has answered once
    │   ├── ConfigError         a device config or scenario: file, line, field, found, hint
    │   │   └── ConfigErrors    everything wrong with one file; ``errors`` in line order
    │   └── HostError           this machine lacks something: a package, root, a free port, adb
    ├── TargetError    exit 3   the device under test failed after it had answered
    │   ├── BootError           the guest panicked or never answered; carries the console's last lines
    │   ├── DeviceLostError     adb or the helper stream went away
    │   └── HelperError         the helper refused or broke the protocol
    └── InfraError     exit 3   our side of the machinery failed (QEMU died, a build step broke)

``owner`` is "user", "target" or "infra" and appears in every JSON error object.
A process that has vanished is a result, never an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class LmkError(Exception):
    """Base of all: ``cause`` (what, where) and ``remedy`` (what to do), one line each."""

    exit_code: ClassVar[int] = 3
    owner: ClassVar[str] = "infra"

    def __init__(self, cause: str, remedy: str = "", *, detail: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        #: Further output that proves the cause (console tail, compiler output); may be many lines.
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.cause}; {self.remedy}" if self.remedy else self.cause


class UserError(LmkError):
    """Something the user asked for or wrote is wrong."""

    exit_code = 2
    owner = "user"


class ConfigError(UserError):
    """A device config or scenario is wrong: ``FILE:LINE: FIELD: found …; remedy``."""

    def __init__(self, file: str, line: int | None, field: str, cause: str, hint: str = "") -> None:
        place = f"{file}:{line}" if line is not None else file
        super().__init__(f"{place}: {field}: {cause}" if field else f"{place}: {cause}", hint)
        self.file, self.line, self.field = file, line, field
        #: The cause without its place.
        self.message = cause


class ConfigErrors(ConfigError):  # noqa: N818 - several of them
    """All errors of one file; reads as the first one and says how many more there are."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        self.errors = tuple(errors)
        first, others = self.errors[0], len(self.errors) - 1
        UserError.__init__(self, first.cause, first.remedy)
        if others:
            more = f"{others} more {'error' if others == 1 else 'errors'}: lmk config check {first.file}"
            self.remedy = f"{first.remedy} ({more})" if first.remedy else more
        self.file, self.line, self.field = first.file, first.line, first.field
        self.message = first.message


class HostError(UserError):
    """The host lacks a package, a right, a port or memory."""


class TargetError(LmkError):
    """The device failed after it had answered."""

    owner = "target"


class BootError(TargetError):
    """The guest panicked or never answered; ``detail`` holds the console's last lines."""


class DeviceLostError(TargetError):
    """The adb transport or the helper stream is gone."""


class HelperError(TargetError):
    """The helper refused a request or spoke another protocol version."""


class InfraError(LmkError):
    """A tool or child process of ours failed."""
