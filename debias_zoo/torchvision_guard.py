"""Lets timm be imported where torch is a CPU build and torchvision was built for CUDA.

Package indexes offer torchvision built against CUDA only. Beside a CPU build of torch its compiled operators cannot be
loaded, and ``import torchvision`` fails while it describes operators (``nms`` and a few more) that were never
registered. timm uses torchvision's Python code alone, so the missing names are declared and the import tried again;
calling one of them still raises.
"""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType
from typing import Any

import torch

_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")
_MOST_OPERATORS = 16
_declared: list[torch.library.Library] = []  # a library's names are gone when it is collected


def import_timm() -> ModuleType:
    """timm, after torchvision, whose compiled operators are declared where they could not be loaded."""
    for _ in range(_MOST_OPERATORS):
        try:
            importlib.import_module("torchvision")
            break
        except RuntimeError as error:
            missing = _MISSING.search(str(error))
            if missing is None:
                raise
            library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            library.define(f"{missing[1]}(Tensor x) -> Tensor")
            _declared.append(library)
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
    return importlib.import_module("timm")
