"""One version in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from driftline.batching.batcher import Batcher
from driftline.batching.cost import Cost
from driftline.engine.cuda.session import MAX_IN_FLIGHT
from driftline.engine.model import Model
from driftline.protocols.codec import Codec, row_limit
from driftline.protocols.mlflow.scoring import MlflowCodec
from driftline.protocols.v1 import V1Codec
from driftline.protocols.v2 import V2Codec
from driftline.registry.source import Version
from driftline.serving.latency import Latency
from driftline.serving.monitoring.watch import Watch


class Served:
    """One version in memory: a model behind a batcher, with its codecs and its monitor.

    watch  its monitor, which runs the model; None if that is off
    """

    def __init__(
        self, version: Version, model: Model, cost: Cost, latency: Latency, watch: Watch | None
    ) -> None:
        self.version = version
        self.watch = watch
        self.model = model
        self.signature = model.signature
        self._codecs: dict[str, Codec] = {
            "v1": V1Codec(model.signature),
            "v2": V2Codec(model.signature, version.name, version.number),
            "mlflow": self._make_mlflow_codec(MlflowCodec),
        }
        self.batcher = Batcher(
            watch.run if watch else model.run,
            model.signature,
            model.settings.batching,
            max(model.settings.engine.instances, MAX_IN_FLIGHT * len(model.device_sessions)),
            cost,
            model.runs_elsewhere,
        )
        self.latency = latency

    @property
    def name_and_version(self) -> tuple[str, str]:
        """The model's name and the version's number, as in reports and metrics."""
        return self.version.name, str(self.version.number)

    def codec(self, protocol: str) -> Codec:
        """The codec of 'v1', 'v2', 'grpc', 'arrow', 'mlflow', 'mlflow-csv' or 'mlflow-parquet'."""
        if protocol not in self._codecs:
            self._codecs[protocol] = self._make_codec(protocol)
        return self._codecs[protocol]

    def _make_codec(self, protocol: str) -> Codec:
        """Make a rarely used codec, whose imports are deferred until now."""
        if protocol == "grpc":
            from driftline.protocols.grpc.codec import GrpcCodec

            return GrpcCodec(self.signature, self.version.name, self.version.number)
        from driftline.protocols.arrow import ArrowCodec  # Arrow takes 0.3 s to import
        from driftline.protocols.mlflow.tabular import CsvCodec, ParquetCodec

        limits = self.model.settings.batching
        if protocol == "arrow":
            return ArrowCodec(self.signature, self.version.name, self.version.number, limits)
        if protocol == "mlflow-csv":
            return self._make_mlflow_codec(CsvCodec)
        max_rows, max_bytes = row_limit(self.signature, limits), limits.max_queue_bytes
        return self._make_mlflow_codec(partial(ParquetCodec, max_rows=max_rows, max_bytes=max_bytes))

    def _make_mlflow_codec(self, codec: Callable[..., MlflowCodec]) -> Codec:
        model = self.model
        return codec(model.signature, model.mlflow, model.classes, lambda: model.predictions)

    def warm_up(self) -> None:
        """Warm up the model while it serves; called in a thread."""
        self.batcher.use_cost(self.model.warm_up())

    def close(self) -> None:
        """Reject waiting requests, and close the batcher and the monitor."""
        self.batcher.close()
        if self.watch is not None:
            self.watch.close()

    def has_same_files(self, version: Version) -> bool:
        """Whether a version has the same number and files as this one, whatever its aliases."""
        return (self.version.number, self.version.fingerprint) == (version.number, version.fingerprint)
