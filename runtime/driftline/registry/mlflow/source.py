"""The model registry of an MLflow tracking server.

It uses only the REST API: MLflow itself takes seconds to import. Versions are fetched through the server's
artifact proxy into a cache on this machine.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from driftline.errors import BadRequest, DriftlineError, NotFound, RegistryError
from driftline.registry.cache import Cache, digest_of, digests_of
from driftline.registry.files import Check, checked, gather, paths_of
from driftline.registry.mlflow.artifacts import Artifacts
from driftline.registry.mlflow.memory import Memory
from driftline.registry.mlflow.tracking import Tracking
from driftline.registry.source import (
    NAME,
    PRODUCTION,
    Reference,
    Registry,
    Version,
    accept,
    check_name,
)

log = logging.getLogger("driftline.registry")

DIGEST = "driftline.digest"
"""The tag with the digest of a version's files, if driftline has registered it."""

_PAGE = "200"


class MlflowRegistry(Registry):
    """Registered models of a tracking server; with their ready versions and aliases.

    Every method raises RegistryError if the server can't be reached or refuses. With `remember`, its last
    responses are used while it is down, and cached versions are still served.

    uri    the server's address, as http://host:5000
    cache  for fetched versions; by default the one that the environment configures
    """

    interval = 5.0  # with passwords, each request takes the server a good part of a second

    def __init__(self, uri: str, cache: Cache | None = None, remember: bool = False) -> None:
        self._cache = cache or Cache.default()
        workspace = os.environ.get("MLFLOW_WORKSPACE", "")
        uri_digest = hashlib.sha256(f"{uri} {workspace}".encode()).hexdigest()[:16]
        memory = Memory(self._cache.root / "registries" / f"{uri_digest}.json") if remember else None
        self._tracking = Tracking(uri, memory)
        self.uri = self._tracking.uri
        self._uri_digest = uri_digest
        self._versions: dict[tuple[str, str, int], Mapping[str, Any]] = {}
        self._datasets: dict[str, list[dict[str, str]]] = {}

    # -- reading ----------------------------------------------------------------------------------

    def models(self) -> list[str]:
        """Return the names of all models that have a version, sorted, except invalid ones."""
        models = self._pages("registered-models/search", "registered_models")
        names = (model["name"] for model in models if model.get("latest_versions"))
        return sorted(name for name in names if NAME.fullmatch(name))

    def versions(self, name: str) -> list[Version]:
        """Return all ready versions of a model, oldest first; NotFound if there is no such model."""
        model = self._model(name)
        documents = self._pages("model-versions/search", "model_versions", filter=f"name='{name}'")
        versions = [self._version(model, document) for document in documents if _is_ready(document)]
        if not versions:
            raise NotFound(f"model {name!r} has no version in {self.uri}")
        return sorted(versions, key=lambda version: version.number)

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version number of each alias of a model; empty if it has none."""
        try:
            return _aliases(self._model(name))
        except NotFound:
            return {}

    def _resolve(self, reference: Reference) -> Version:
        """See Registry.resolve; with one request while nothing changes."""
        model = self._model(reference.name)
        number = reference.version
        if number is None:
            newest = max((int(document["version"]) for document in _latest(model)), default=None)
            number = _aliases(model).get(
                reference.alias or PRODUCTION, newest if reference.alias is None else None
            )
        document = self._document(model, number) if number is not None else None
        if document is None or not _is_ready(document):
            return super()._resolve(reference)  # its error lists what exists
        return self._version(model, document, self._lineage_of(document))

    def _model(self, name: str) -> dict[str, Any]:
        try:
            answer = self._tracking.ask("registered-models/get", name=check_name(name))
        except NotFound:
            existing = ", ".join(self.models()) or "none yet, `driftline register` makes one"
            raise NotFound(f"no model {name!r} in {self.uri}; there are: {existing}") from None
        return dict(answer["registered_model"])

    def _document(self, model: Mapping[str, Any], number: int) -> Mapping[str, Any] | None:
        """Return the server's document of a version, cached: apart from its tags it never changes."""
        for latest in _latest(model):
            if int(latest["version"]) == number:
                return latest
        key = (str(model["name"]), str(model.get("creation_timestamp")), number)
        if key not in self._versions:
            try:
                answer = self._tracking.ask("model-versions/get", name=key[0], version=str(number))
            except NotFound:
                return None
            self._versions[key] = answer["model_version"]
        return self._versions[key]

    def _lineage_of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return a version's lineage: its run, its logged model, its training data."""
        run_id, source = str(document.get("run_id") or ""), str(document.get("source") or "")
        lineage: dict[str, Any] = {"run_id": run_id} if run_id else {}
        if source.startswith("models:/m-"):
            lineage["model_id"] = source.removeprefix("models:/")
        if run_id and run_id not in self._datasets:
            # Permission to read a model does not always include its run.
            with suppress(DriftlineError, KeyError):
                answer = self._tracking.ask("runs/get", run_id=run_id)
                self._datasets[run_id] = [
                    {"name": dataset_input["dataset"]["name"], "digest": dataset_input["dataset"]["digest"]}
                    for dataset_input in answer["run"].get("inputs", {}).get("dataset_inputs", [])
                ]
        return lineage | {"datasets": datasets} if (datasets := self._datasets.get(run_id)) else lineage

    def _version(
        self, model: Mapping[str, Any], document: Mapping[str, Any], lineage: Mapping[str, Any] | None = None
    ) -> Version:
        number, created = int(document["version"]), int(document.get("creation_timestamp", 0))
        return Version(
            str(document["name"]),
            number,
            created / 1000,
            tuple(sorted(alias for alias, target in _aliases(model).items() if target == number)),
            # The versions of a model that was deleted and registered again start from 1 again.
            f"{document.get('source', '')} {created}",
            {tag["key"]: tag.get("value", "") for tag in document.get("tags", [])},
            lineage or {},
        )

    def _pages(self, path: str, key: str, **query: str) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            more = {"page_token": token} if token else {}
            answer = self._tracking.ask(path, max_results=_PAGE, **query, **more)
            yield from answer.get(key, [])
            token = str(answer.get("next_page_token") or "")
            if not token:
                return

    # -- fetching ---------------------------------------------------------------------------------

    def fetch(self, version: Version) -> Path:
        """Return the version's folder in the cache; fetch it if it is missing.

        Raises RegistryError for files that are incomplete, outside their folder or not as registered.
        """
        source = f"{self._uri_digest} {version.name} {version.number} {version.fingerprint}"
        key = hashlib.sha256(source.encode()).hexdigest()
        try:
            if folder := self._cache.find(key):
                return folder
            with self._cache.filling(key) as folder:
                # Another process may have been faster.
                return self._cache.find(key) or self._cache.keep(key, *self._download(version, folder))
        except OSError as error:
            raise RegistryError(
                f"{version.name} {version.number} can't be kept in the cache: {error}"
            ) from error

    def _download(self, version: Version, folder: Path) -> tuple[Path, dict[str, str]]:
        """Download a version's artifacts, again if they are not as registered; return folder and digests."""
        artifacts = Artifacts(self._tracking, self._artifact_uri(version))
        expected = version.tags.get(DIGEST)
        for attempt in ("first", "last"):
            listing = artifacts.listing()
            if not listing:
                raise NotFound(
                    f"version {version.number} of model {version.name!r} has no files in {self.uri}"
                )
            parts = {artifact.path: artifacts.download(artifact, folder) for artifact in listing}
            digests = {path: digest for path, (_, digest) in parts.items()}
            if expected in (None, actual := digest_of(digests)):
                return _arrange({path: part for path, (part, _) in parts.items()}, folder / "files"), digests
            for part, _ in parts.values():
                part.unlink()
            log.warning("%s %d: its files came damaged, at the %s try", version.name, version.number, attempt)
        raise RegistryError(
            f"{version.name} {version.number}: expected files of the digest {expected}, got {actual}"
        )

    def _artifact_uri(self, version: Version) -> str:
        answer = self._tracking.ask(
            "model-versions/get-download-uri", name=version.name, version=str(version.number)
        )
        uri = str(answer["artifact_uri"])
        if uri.startswith("models:/m-"):
            answer = self._tracking.ask(f"logged-models/{uri.removeprefix('models:/')}")
            uri = str(answer["model"]["info"]["artifact_uri"])
        return uri

    # -- writing ----------------------------------------------------------------------------------

    def register(self, files: Sequence[str | Path] | str | Path, name: str, check: Check = accept) -> Version:
        """Upload files, or all contents of one folder, as a logged model, and create a version of it.

        The version is created when all files are uploaded. MLflow can load it, too: an MLmodel is written
        beside the model, unless there is one. Raises BadRequest as other registries do.
        """
        from driftline.registry.mlflow.logged import complete_mlflow_model  # it loads models

        check_name(name)
        files = paths_of(files)
        bundle = gather(files)
        with TemporaryDirectory(prefix="driftline-") as temporary:
            folder = Path(temporary)
            for target, source in bundle.items():
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / target)
            checked(check, folder, files, bundle)
            info = self._logged_model(name)
            try:
                complete_mlflow_model(folder, info["model_id"], info["artifact_uri"])
                digests = self._upload(folder, info["artifact_uri"])
                self._tracking.tell(
                    "PATCH",
                    f"logged-models/{info['model_id']}",
                    {"model_id": info["model_id"], "status": "LOGGED_MODEL_READY"},
                )
                return self._create_version(name, info["model_id"], digest_of(digests))
            except BaseException:
                with suppress(DriftlineError):
                    self._tracking.tell("DELETE", f"logged-models/{info['model_id']}", {})
                raise

    def _logged_model(self, name: str) -> dict[str, Any]:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
        answer = self._tracking.ask("experiments/get-by-name", experiment_name=experiment)
        document = {
            "experiment_id": answer["experiment"]["experiment_id"],
            "name": name.replace(".", "-"),  # MLflow allows no dot here
            "model_type": "onnx",
        }
        return dict(self._tracking.tell("POST", "logged-models", document)["model"]["info"])

    def _upload(self, folder: Path, uri: str) -> dict[str, str]:
        artifacts, digests = Artifacts(self._tracking, uri), digests_of(folder)
        for path in digests:
            artifacts.upload(folder / path, path)
        return digests

    def _create_version(self, name: str, model_id: str, digest: str) -> Version:
        try:
            self._model(name)
        except NotFound:
            with suppress(RegistryError):  # another client may just have created it
                self._tracking.tell("POST", "registered-models/create", {"name": name})
        answer = self._tracking.tell(
            "POST",
            "model-versions/create",
            {
                "name": name,
                "source": f"models:/{model_id}",
                "model_id": model_id,
                "tags": [{"key": DIGEST, "value": digest}],
            },
        )
        return self._version({}, answer["model_version"])

    def check_alias(self, alias: str) -> str:
        """Return `alias` if `promote` accepts it; BadRequest if not, also if MLflow would reject it."""
        if "." in alias or alias.lower() == "latest":
            raise BadRequest(
                f"alias {alias!r}: MLflow takes letters, digits, '_' and '-', and not the word 'latest'"
            )
        return super().check_alias(alias)

    def promote(self, name: str, version: int, alias: str = PRODUCTION) -> None:
        """Point `alias` at a version; NotFound if there is no such version, BadRequest for an alias that
        MLflow does not allow."""
        self.check_alias(alias)
        self.resolve(Reference(name, version=version))
        document = {"name": name, "alias": alias, "version": str(version)}
        self._tracking.tell("POST", "registered-models/alias", document)


def _latest(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the newest versions, one for each of MLflow's former stages."""
    return [dict(version) for version in model.get("latest_versions", [])]


def _aliases(model: Mapping[str, Any]) -> dict[str, int]:
    return {str(alias["alias"]): int(alias["version"]) for alias in model.get("aliases", [])}


def _arrange(parts: Mapping[str, Path], files: Path) -> Path:
    """Move the downloaded parts to their places in a new folder."""
    shutil.rmtree(files, ignore_errors=True)
    for path, part in parts.items():
        target = files / path
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
    return files


def _is_ready(document: Mapping[str, Any]) -> bool:
    return str(document.get("status", "READY")) == "READY"
