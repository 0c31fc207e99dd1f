"""The model card of an exported model: Markdown with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .dataset import BiasDataset
from .errors import ZooError
from .exported import ONNX, Exported
from .method import Method
from .metrics import METRICS, group_accuracies
from .plugin_files import VARIABLE
from .registry import OURS, entry
from .reports.cells import TITLES, percent
from .reports.markdown import escape
from .reports.table import shown_split
from .store import Predictions, Run

_MOST_BIASES = 16
"""With more values of the bias, the groups' accuracies are too wide for a page: the worst groups are listed."""

_WORST = 10


def model_card(run: Run, dataset: BiasDataset, config: Exported, method: Method, license_: str = "") -> str:
    """What a stranger must know before using the model: data and its bias, numbers by group, labels read, licence.

    Args:
        run: the finished trial.
        dataset: what it was trained on.
        config: what is written beside the card.
        method: as training left it.
        license_: of the model, an identifier of the hub; empty: not chosen.
    """
    import yaml

    front = yaml.safe_dump(_front(run, dataset, config, license_), sort_keys=False, allow_unicode=True)
    parts = [
        *_head(dataset, config, method),
        *_use(config),
        *_data(dataset, config),
        *_labels(config),
        *_numbers(run, config),
        *_training(run, config),
        *_licence(dataset, license_),
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


def _front(run: Run, dataset: BiasDataset, config: Exported, license_: str) -> dict[str, Any]:
    split = shown_split(run.result.metrics)
    numbers = run.result.metrics.get(split, {})
    results = [
        {"type": metric, "name": f"{TITLES[metric]} ({split})", "value": round(value, 6)}
        for metric in METRICS
        if (value := numbers.get(metric)) is not None
    ]
    name = f"{config.network.method}-{config.dataset}"
    data = {"type": config.dataset, "name": dataset.card.title, "split": split}
    return {
        **({"license": license_} if license_ else {"license": "other", "license_name": "not-chosen-see-below"}),
        "library_name": "debias-zoo",
        "pipeline_tag": "image-classification",
        "tags": ["debias-zoo", "debiasing", "image-classification", config.network.method, config.dataset],
        "metrics": ["accuracy"],
        "model-index": [
            {"name": name, "results": [{"task": {"type": "image-classification"}, "dataset": data, "metrics": results}]}
        ],
    }


def _head(dataset: BiasDataset, config: Exported, method: Method) -> Iterator[str]:
    paper, network = method.paper, config.network
    yield f"# {escape(network.method)} on {escape(config.dataset)}"
    where = f", arXiv:{paper.arxiv}" if paper.arxiv else ""
    yield (
        f"An image classifier trained by `{network.method}` ({escape(paper.authors)}, *{escape(paper.title)}*, "
        f"{escape(paper.venue)} {paper.year}{where}) on {escape(dataset.card.title)}, where the bias attribute is "
        f"{escape(dataset.bias_attribute)}. One training run of a comparison of debiasing methods, exported by "
        "debias-zoo: meant for research on bias, not for decisions about people or things."
    )


def _use(config: Exported) -> Iterator[str]:
    channels, height, width = config.task.image_shape
    yield "## Use"
    yield (
        '```python\nimport debias_zoo\n\nmodel = debias_zoo.load(".")  # this folder\n'
        'model.predict(["image.png"])  # probabilities (1, classes)\nmodel.classify(["image.png"])  # names\n```'
    )
    said = (
        f"Images are {height} x {width} pixels with {channels} channel{'s' * (channels != 1)}, values in [0, 1]; what "
        "the network does to them (normalisation, grey, ...) is part of it."
    )
    if ONNX in config.digests:
        said += f" `{ONNX}` takes `image` float32 (N, {channels}, {height}, {width}) and gives `logits` (N, classes)."
    yield said
    method = entry("method", config.network.method)
    if method.file is not None:
        yield f"The method `{method.name}` is in a file, `{method.file.name}`: name it in `${VARIABLE}`."
    elif method.origin != OURS:
        yield f"The method `{method.name}` comes from the package `{escape(method.origin)}`: install it too."
    yield f"Classes, in the order of the outputs: {escape(', '.join(config.classes))}."


def _data(dataset: BiasDataset, config: Exported) -> Iterator[str]:
    card = dataset.card
    yield "## Data and bias"
    yield f"{escape(card.title)}. {escape(card.about)}"
    params = ", ".join(f"{key}={value}" for key, value in config.params.items() if value not in ("", None))
    link = f" <{card.url}>" if card.url.startswith(("https://", "http://")) else ""
    named = f"Data set `{config.dataset}`" + (f", {escape(params)}" if params else "")
    yield f"{named}. {escape(card.citation.rstrip('.'))}.{link}"
    tied = [
        f"{escape(name)}: {escape(', '.join(card.biases[bias] for bias in biases))}"
        for name, biases in zip(card.classes, card.aligned, strict=True)
        if biases
    ]
    if tied:
        yield f"In training, the bias ({escape(dataset.bias_attribute)}) goes with the class:"
        yield "\n".join(f"- {line}" for line in tied)


def _labels(config: Exported) -> Iterator[str]:
    said = config.supervision
    yield "## Supervision"
    text = f"{said.level[0].upper()}{said.level[1:]}."
    if said.knows_bias_kind:
        text += " The method is built for one kind of bias."
    if said.tuned_on:
        text += f" Settings were chosen on {escape(said.tuned_on)}."
    yield text


def _numbers(run: Run, config: Exported) -> Iterator[str]:
    yield "## Results"
    metrics = run.result.metrics
    yield f"Of the last epoch, in per cent; one run, seed {config.network.seed}, in {config.precision}."
    head = ["Split", *[TITLES[metric] for metric in METRICS], "Images"]
    rows = [
        [escape(name), *[_percent(found.get(metric)) for metric in METRICS], f"{found.get('n') or 0:.0f}"]
        for name, found in metrics.items()
    ]
    yield _grid(head, rows)
    split = shown_split(metrics)
    try:
        found = run.predictions()[split]
    except (ZooError, KeyError):
        yield "Accuracies by group are not known: the predictions of this run were not kept."
        return
    if found.biases is not None:
        yield from _by_group(found, split, config)


def _by_group(found: Predictions, split: str, config: Exported) -> Iterator[str]:
    shape = len(config.classes), len(config.biases)
    assert found.biases is not None
    accuracy, counts = group_accuracies(found.classes[-1], found.labels, found.biases, shape)
    classes, biases = ([escape(name) for name in names] for names in (config.classes, config.biases))
    if shape[1] <= _MOST_BIASES:
        yield f"Accuracy by group on {escape(split)}, a row a class, a column a bias; images in brackets:"
        cells = [
            [f"{_percent(a)} ({n})" if n else "" for a, n in zip(*row, strict=True)]
            for row in zip(accuracy, counts, strict=True)
        ]
        yield _grid(["", *biases], [[name, *row] for name, row in zip(classes, cells, strict=True)])
        return
    there = [
        divmod(int(code), shape[1]) for code in np.argsort(accuracy, axis=None, kind="stable") if counts.flat[code]
    ]
    yield f"The worst of {len(there)} groups on {escape(split)}:"
    rows = [[classes[c], biases[b], _percent(accuracy[c, b]), str(counts[c, b])] for c, b in there[:_WORST]]
    yield _grid(["Class", "Bias", "Accuracy", "Images"], rows)


def _training(run: Run, config: Exported) -> Iterator[str]:
    trial = run.result.trial.model_copy(update={"params": config.params})
    torch = str(run.result.environment.get("torch", "?"))
    yield "## Training"
    lines = [
        f"backbone `{trial.backbone}`, normalisation `{trial.normalize}`",
        f"protocol `{trial.protocol}`, precision `{trial.precision}`, seed {trial.seed}",
        f"trial `{trial.identity}`, {escape(config.made_by)}, torch {escape(torch)}",
        *([f"settings from {escape(trial.source)}"] if trial.source else []),
        *[f"differs from its paper: {escape(text)}" for text in trial.deviations],
        *[escape(note) for note in run.result.notes],
    ]
    yield "\n".join(f"- {line}" for line in lines)
    yield f"    {' '.join(trial.command().split())}"


def _licence(dataset: BiasDataset, license_: str) -> Iterator[str]:
    yield "## Licence"
    chosen = f"The model: {escape(license_)}." if license_ else "No licence was chosen for the model."
    data = escape(dataset.card.licence)
    yield f"{chosen} It was trained on data under: {data}. Respect those terms when you pass it on."


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else percent(float(fraction))


def _grid(head: list[str], rows: list[list[str]]) -> str:
    ruler = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ruler, *rows))
