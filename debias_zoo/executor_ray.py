"""Trials as Ray tasks, on one machine or on a cluster: ``--executor ray [--address HOST:PORT]``."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from .devices import cores
from .errors import ZooError
from .executor_polling import PollingExecutor, missing
from .executors import Setup
from .remote import run_job
from .trial import Trial

OBJECT_STORE = 100 * 2**20
"""Bytes for Ray's shared memory where it is started here: a job is a few kilobytes of text."""


class RayExecutor(PollingExecutor):
    """One Ray task a trial, with ``threads`` CPUs and, on a GPU, a share of one.

    A task is handed the text of its job and returns the text of its last event; no object of ours is pickled. Ray
    itself tries nothing again: a trial whose worker or node died is begun once more by the driver. Without an address
    Ray is started on this machine alone, on the loopback, and ends with the run.
    """

    name = "ray"
    takes = ("address", "per-gpu")

    def __init__(self, setup: Setup) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning a task
        self.address = setup.address or os.environ.get("RAY_ADDRESS", "")
        if not self.address or self.address.startswith(("127.", "localhost:")):
            # the one way to make Ray take the loopback for this machine's address; it listens nowhere else then
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        import ray

        super().__init__(setup)
        self._ray: Any = ray
        _silence(ray)
        try:
            self._connect()
            self._task = self._ray.remote(**self._resources(), max_retries=0, retry_exceptions=False)(run_job)
        except BaseException:
            self.close()
            raise

    @classmethod
    def check(cls) -> None:
        if find_spec("ray") is None:
            raise missing("ray", "ray", "ray")

    def submit(self, trial: Trial, text: str) -> Any:
        return self._task.options(name=trial.label).remote(text)

    def ended(self, handle: Any) -> dict[str, Any] | None:
        ready, _ = self._ray.wait([handle], timeout=0)
        if not ready:
            return None
        try:
            found: dict[str, Any] = json.loads(self._ray.get(handle))
        except self._ray.exceptions.RayError as error:
            return {"event": "died", "error": f"its Ray worker is gone ({type(error).__name__}: {_reason(error)})"}
        return found

    def cancel(self, handle: Any) -> None:
        self._ray.cancel(handle, force=True)

    def close(self) -> None:
        super().close()
        self._ray.shutdown()

    def _connect(self) -> None:
        """Join the cluster at the address, or start one here."""
        address = self.address
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address.startswith("ray://"):
            raise ZooError(
                f"--address {address}: give the cluster's own address, HOST:PORT, and run this on one of its machines"
            )
        if not address:
            here = max(cores(), self.setup.threads)
            store = {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
            self._ray.init(address="local", num_cpus=here, **store, **quiet)
            return
        try:
            self._ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise ZooError(
                f"--address {address}: no Ray cluster answers there ({_reason(error)}): start one with `ray start "
                "--head`, or leave the address out for Ray on this machine alone"
            ) from error

    def _resources(self) -> Mapping[str, float]:
        """What a trial takes; raises a ZooError where no machine of the cluster has it."""
        asked = {"CPU": float(self.setup.threads)}
        if self.setup.device.startswith("cuda"):
            asked["GPU"] = 1.0 / self.setup.per_gpu
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(node.get(what, 0.0) >= count for what, count in asked.items()) for node in nodes):
            needed = ", ".join(f"{count:g} {what}" for what, count in asked.items())
            raise ZooError(
                f"no machine of the Ray cluster has what a trial takes ({needed}): start one that has, or ask for less "
                "with --threads, --per-gpu or --device cpu"
            )
        return {f"num_{what.lower()}s": count for what, count in asked.items()}


def _silence(ray: Any) -> None:
    """Keep a dying node's log out of what the run shows, which says itself what died; Ray has no switch for it."""
    worker = ray._private.worker
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = lambda *given, **named: None


def _reason(error: BaseException) -> str:
    """The first sentence: Ray goes on with advice on its own logs."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].partition(". ")[0].rstrip(".") if lines else "no reason given"
