"""Values that a user gave, checked by the model that knows what is allowed."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import ZooError, unknown

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], values: dict[str, Any], who: str, note: str = "") -> Model:
    """``model(**values)``, or a ZooError that says which value is wrong and what is allowed; ``note`` of what else."""
    known = model.model_fields
    for key in values:
        if key not in known:
            raise unknown(f"setting of {who}:", key, known, note)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "?"
        key = where.partition(".")[0]
        about = known[key].description if key in known else ""
        raise ZooError(f"{who}: {where}={first['input']!r}: {first['msg']} ({about})") from error


def first_fault(error: ValidationError) -> str:
    """The first of the fields that are not as they should be, and what is wrong with it."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else str(first["msg"])


def reason(error: Exception) -> str:
    """The kind of an error and, of fields that are not as they should be, the first one."""
    kind = type(error).__name__
    return f"{kind}: {first_fault(error)}" if isinstance(error, ValidationError) else kind
