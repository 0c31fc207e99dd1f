"""The table for programs: CSV and JSON, one record a row, fractions and registry names."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from debias_zoo.metrics import ALL_METRICS, LEAKAGE

from .rows import Row, Table

METRIC_COLUMNS = tuple(name for metric in (*ALL_METRICS, LEAKAGE) for name in (metric, f"{metric}_std"))

COLUMNS = (
    *("method", "dataset", "setting", "params", "protocol", "backbone", "backbone_options", "weights", "precision"),
    *("split", "selection", "supervision", "tuned_on", "knows_bias_kind", "n", "seeds"),
    *METRIC_COLUMNS,
    *("worst_group_low", "worst_group_high"),
    *("published", "published_metric", "published_verified", "published_source", "seconds"),
)
"""Of both formats, in this order; fractions in [0, 1], seconds in seconds; what is not known is empty or null."""


def records(table: Table) -> list[dict[str, Any]]:
    """One dict a row with the keys ``COLUMNS`` and JSON values."""
    return [_record(row, table.selection) for row in table.rows]


def to_json(table: Table) -> str:
    """A list of objects."""
    return json.dumps(records(table), indent=1, ensure_ascii=False) + "\n"


def to_csv(table: Table) -> str:
    """With a header; lists, objects and truth values as JSON, None as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records(table):
        writer.writerow([field(record[name]) for name in COLUMNS])
    return text.getvalue()


def _record(row: Row, selection: str) -> dict[str, Any]:
    trial, supervision = row.trial, row.supervision
    record: dict[str, Any] = {
        "method": row.method,
        "dataset": row.dataset,
        "setting": row.setting,
        "params": trial.model_dump(mode="json")["params"],
        "protocol": trial.protocol,
        "backbone": trial.backbone,
        "backbone_options": trial.model_dump(mode="json")["backbone_options"],
        "weights": trial.weights_digest,
        "precision": trial.precision,
        "split": row.split,
        "selection": selection,
        "supervision": supervision.level,
        "tuned_on": supervision.tuned_on,
        "knows_bias_kind": supervision.knows_bias_kind,
        "n": len(row.seeds),
        "seeds": list(row.seeds),
    }
    for metric in (*ALL_METRICS, LEAKAGE):
        value = row.values[metric]
        record[metric] = value.mean if value else None
        record[f"{metric}_std"] = value.std if value else None
    record["worst_group_low"], record["worst_group_high"] = row.worst or (None, None)
    record["published"] = row.published.mean if row.published else None
    record["published_metric"] = row.published.metric if row.published else None
    record["published_verified"] = row.published.verified if row.published else None
    record["published_source"] = row.published.source if row.published else None
    record["seconds"] = row.seconds
    return record


def field(value: Any) -> str:
    """A value of a CSV field: text as it is, the rest as JSON, None empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
