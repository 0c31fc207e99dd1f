"""Trials as Slurm jobs, through submitit: ``--executor slurm --slurm partition=gpu --slurm time=120``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import ZooError
from .executor_polling import PollingExecutor, missing
from .executors import Setup
from .remote import run_job
from .trial import Trial

GENERIC = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "stderr_to_stdout", "name")
"""Parameters that submitit has for every cluster; the others are Slurm's own."""

CANCEL_SECONDS = 10.0


class SlurmExecutor(PollingExecutor):
    """One Slurm job a trial.

    ``--slurm cluster=local`` runs the jobs as processes on this machine, ``cluster=debug`` one after the other in this
    process. Jobs and what they print lie in ``<out>/.slurm``. submitit pickles there what it submits and reads pickles
    of what came back; ours hold nothing but a function's name and plain JSON text (the trial and paths, then its last
    event), and who can write below ``<out>`` must be trusted as far as who can start jobs.
    """

    name = "slurm"
    takes = ("slurm",)

    def __init__(self, setup: Setup) -> None:
        import submitit

        super().__init__(setup)
        given = {key: _value(text) for key, text in setup.slurm.items()}
        self.cluster = str(given.pop("cluster", "slurm"))
        if self.cluster not in {"slurm", "local", "debug"}:
            raise self._refused(f"cluster={self.cluster}: slurm, local or debug")
        try:
            self._jobs = submitit.AutoExecutor(self.setup.out / ".slurm" / "%j", cluster=self.cluster)
            self._jobs.update_parameters(**self._parameters(given))
        except (AssertionError, NameError, ValueError, RuntimeError, OSError) as error:
            raise self._refused(str(error)) from error

    @classmethod
    def check(cls) -> None:
        if find_spec("submitit") is None:
            raise missing("slurm", "submitit", "slurm")

    def submit(self, trial: Trial, text: str) -> Any:
        with _found_package():
            return self._jobs.submit(run_job, text)

    def ended(self, handle: Any) -> dict[str, Any] | None:
        if not handle.done():
            return None
        try:
            found: dict[str, Any] = json.loads(handle.result())
        except Exception as error:  # submitit raises what it found, or that it found nothing
            last = [line.strip() for line in str(error).splitlines() if line.strip(" -")][-1:]
            return {
                "event": "died",
                "error": f"its Slurm job {handle.job_id} ended without a result ({type(error).__name__}"
                f"{': ' + last[0] if last else ''})",
            }
        return found

    def cancel(self, handle: Any) -> None:
        handle.cancel(check=False)
        if self.cluster == "local":  # its processes end with this run
            ends = time.monotonic() + CANCEL_SECONDS
            while not handle.done() and time.monotonic() < ends:
                time.sleep(0.1)

    def _parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """submitit's, with a trial's threads and GPU where nothing else is asked for."""
        asked: dict[str, Any] = {"name": "debias-zoo", "cpus_per_task": self.setup.threads}
        if self.cluster == "local":
            asked["timeout_min"] = 7 * 24 * 60
        if self.setup.device.startswith("cuda"):
            asked["gpus_per_node"] = 1
        for key, value in given.items():
            known = key in GENERIC or key.startswith("slurm_")
            asked[key if known else f"slurm_{key}"] = value
        return asked

    def _refused(self, why: str) -> ZooError:
        with suppress(Exception):
            self.close()
        given = " ".join(f"--slurm {key}={value}" for key, value in self.setup.slurm.items())
        return ZooError(f"--executor slurm {given}: {' '.join(why.split())}")


@contextmanager
def _found_package() -> Iterator[None]:
    """Let jobs, which inherit the environment, import this package and nothing from where the user stands."""
    before = dict(os.environ)
    paths = [str(Path(__file__).resolve().parent.parent), *filter(None, before.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ.update(PYTHONPATH=os.pathsep.join(paths), PYTHONSAFEPATH="1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _value(text: str) -> Any:
    """A number or a truth value where it reads as one, else the text."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, int | float) else text
