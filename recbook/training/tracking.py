"""Runs tracked and compared with MLflow, in a local store: a `track` for `train`, and a table of runs."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from recbook.training.config import TrainingConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def track_with_mlflow(
    folder: str | Path, settings: TrainingConfig, name: str | None = None, experiment: str = "recbook"
) -> Callable[[dict], None]:
    """A `track` for `train` that writes every figure to MLflow's store, `mlflow.db` in a folder.

    An unfinished run of the same name and settings is continued, without repeating what it has; else a new one begins.
    Look at the store with `mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db`.
    ImportError, with the remedy, where MLflow is not installed.
    """
    client, place = _store(folder, experiment)
    run = _unfinished(client, place, settings, name)
    if run is None:
        run = client.create_run(place, run_name=name)
        for key, value in asdict(settings).items():
            client.log_param(run.info.run_id, key, value)
    last = int(run.data.metrics.get("step", 0))

    def track(figures: dict) -> None:
        if figures["step"] > last:  # else told before the run was interrupted
            client.log_batch(run.info.run_id, _metrics(figures))  # in one piece: a kill leaves no half of a step
        if figures["step"] == settings.steps:
            client.set_terminated(run.info.run_id)

    return track


def tracked_runs(folder: str | Path, experiment: str = "recbook") -> pd.DataFrame:
    """The runs in a folder's store, oldest first: name, status, the last value of every metric, settings as text.

    Where a metric has a setting's name, as the learning rate of a step has, the setting is shown.
    """
    client, place = _store(folder, experiment)
    found = client.search_runs([place], order_by=["attributes.start_time ASC"])
    rows = [{"run": run.info.run_name, "status": run.info.status} | run.data.metrics | run.data.params for run in found]
    return pd.DataFrame(rows)


def metric_history(folder: str | Path, name: str, metric: str, experiment: str = "recbook") -> pd.Series:
    """Every value of a metric of the latest run of that name, by step. KeyError if there is no such run."""
    client, place = _store(folder, experiment)
    found = _named(client, place, name)
    if not found:
        raise KeyError(f"no run is called {name!r} in {Path(folder) / 'mlflow.db'}")
    points = client.get_metric_history(found[0].info.run_id, metric)
    return pd.Series({point.step: point.value for point in points}, name=metric).sort_index()


def _metrics(figures: dict) -> list:
    from mlflow.entities import Metric

    now, step = int(time.time() * 1000), figures["step"]  # milliseconds
    return [Metric(key, value, now, step) for key, value in figures.items() if isinstance(value, int | float)]


def _store(folder: str | Path, experiment: str) -> "tuple[MlflowClient, str]":
    """A client of the store in a folder, and the experiment's id there; both are made if missing."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    try:
        import mlflow
    except ImportError as error:
        raise ImportError("tracking needs MLflow: pip install 'recbook[tracking]'") from error
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    place = found.experiment_id if found else client.create_experiment(experiment, (folder / "mlflow").as_uri())
    return client, place


def _named(client: "MlflowClient", place: str, name: str) -> "list[Run]":
    """The runs of a name, latest first."""
    found = client.search_runs([place], order_by=["attributes.start_time DESC"])
    return [run for run in found if run.info.run_name == name]


def _unfinished(client: "MlflowClient", place: str, settings: TrainingConfig, name: str | None) -> "Run | None":
    wanted = {key: str(value) for key, value in asdict(settings).items()}
    for run in _named(client, place, name) if name else []:
        if run.info.status == "RUNNING" and run.data.params == wanted:
            return run
    return None
