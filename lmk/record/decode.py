"""Recorded decisions as the values they were: the way back from ``lmk.record.encode``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from lmk.errors import UserError
from lmk.policy.decision import Decision, Evaluation


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
