"""Recorded decisions and answers as the values they were: the way back from ``lmk.record.encode``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from lmk.errors import UserError
from lmk.policy import api
from lmk.policy.decision import Decision, Evaluation
from lmk.procfs import meminfo, psi, vmstat, zoneinfo


def decision_of(body: Mapping[str, Any]) -> Decision:
    """A ``decision`` row's body as a Decision. UserError if another version of lmk wrote it with other fields."""
    fields = {name: value for name, value in body.items() if name != "type"}
    try:
        fields["evaluations"] = tuple(_evaluation(item) for item in fields.get("evaluations", ()))
        fields["killed_pids"] = tuple(fields.get("killed_pids", ()))
        fields["killed_adjs"] = tuple(fields.get("killed_adjs", ()))
        return Decision(**fields)
    except TypeError as error:
        raise UserError(
            f"this record's decisions are not this lmk's ({error})", "explain it with the lmk that wrote it"
        ) from None


def _evaluation(body: Mapping[str, Any]) -> Evaluation:
    known = {field.name for field in attrs.fields(Evaluation)}
    return Evaluation(**{name: value for name, value in body.items() if name in known})


_CLASSES: Mapping[str, type[Any]] = {
    cls.__name__: cls
    for module in (api, meminfo, vmstat, zoneinfo, psi)
    for cls in vars(module).values()
    if isinstance(cls, type) and attrs.has(cls)
}


def value_of(plain: Any, text: Callable[[int], bytes]) -> Any:
    """A recorded answer as the value it was; ``text`` gives a stored text by its id. UserError for an unknown type."""
    if isinstance(plain, list):
        return tuple(value_of(item, text) for item in plain)
    if not isinstance(plain, dict):
        return plain
    if set(plain) == {"text"}:
        return text(plain["text"]).decode(errors="surrogateescape")
    if set(plain) == {"hex"}:
        return bytes.fromhex(plain["hex"])
    if "type" not in plain:
        return {key: value_of(item, text) for key, item in plain.items()}
    cls = _CLASSES.get(plain["type"])
    if cls is None:
        raise UserError(
            f"this record holds a {plain['type']}, which this lmk does not know", "use the lmk that wrote it"
        )
    return cls(**{name: value_of(item, text) for name, item in plain.items() if name != "type"})
