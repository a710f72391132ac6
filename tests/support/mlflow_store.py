"""An MLflow store for a test, with one experiment and one run."""

from srt.tracking.tracker import open_tracker


class Store:
    """An MLflow store in a folder, and functions that read it."""

    def __init__(self, root):
        self.root = root

    @property
    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.root}/mlflow.db")

    # Write a run.

    def open_run(self, folder="ckpt", parent=""):
        return open_tracker(
            self.root / folder,
            root=self.root,
            experiment="quick",
            run_name="nmr_srt",
            description="SRT on synthetic NMR",
            tags={"synthetic": "yes"},
            parameters={"seed": 0, "model": {"latent_dim": 64, "heads": 2}},
            parent=parent,
        )

    # Read what the store has.

    def runs(self):
        experiment = self.client.get_experiment_by_name("quick")
        return self.client.search_runs([experiment.experiment_id])

    def run(self):
        """Return the only run."""
        (run,) = self.runs()
        return run

    def points(self, key="loss"):
        """Return the steps and values of a metric."""
        history = self.client.get_metric_history(self.run().info.run_id, key)
        return [(point.step, point.value) for point in history]

    def files(self, folder):
        files = self.client.list_artifacts(self.run().info.run_id, folder)
        return sorted(file.path for file in files)
