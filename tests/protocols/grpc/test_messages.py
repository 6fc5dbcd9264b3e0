"""The messages are what the `.proto` files say, and what the clients of others mean by them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from driftline.protocols.grpc import messages

FOLDER = Path(messages.__file__).parent

TELL = """
import json
from {module} import DESCRIPTOR as file
def told(message):
    fields = {{f.name: [f.number, f.type, f.is_repeated] for f in message.fields}}
    yield message.full_name, fields
    for nested in message.nested_types:
        yield from told(nested)
files = [file, *file.dependencies]
found = dict(pair for one in files for m in one.message_types_by_name.values() for pair in told(m))
enums = [enum for one in files for enum in one.enum_types_by_name.values()]
found |= {{enum.full_name: {{value.name: value.number for value in enum.values}} for enum in enums}}
service = file.services_by_name["GRPCInferenceService"]
found[service.full_name] = {{
    m.name: [m.input_type.full_name, m.client_streaming, m.output_type.full_name, m.server_streaming]
    for m in service.methods
}}
print(json.dumps(found))
"""
OURS = """
from driftline.protocols.grpc.messages import POOL
DESCRIPTOR = POOL.FindFileByName("inference.proto")
"""


REQUESTS = {"inference.RepositoryModelLoadRequest", "inference.RepositoryModelUnloadRequest"}
ANSWERS = {"inference.RepositoryModelLoadResponse", "inference.RepositoryModelUnloadResponse"}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def described(module: str) -> dict[str, dict[str, object]]:
    code = TELL.format(module=module)
    if module == "ours":
        code = OURS + code.replace("from ours import DESCRIPTOR as file", "file = DESCRIPTOR")
    found: dict[str, dict[str, object]] = json.loads(python(code).splitlines()[-1])
    return found


def test_they_are_compiled_from_the_files_beside_them(tmp_path: Path) -> None:
    compiled = tmp_path / "messages.binpb"
    files = sorted(path.name for path in FOLDER.glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={compiled}", *files]
    subprocess.run(command, check=True, cwd=FOLDER)
    fresh, kept = (
        descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
        for path in (compiled, FOLDER / "messages.binpb")
    )
    assert fresh == kept, "make messages"


def test_they_are_tritons() -> None:
    ours, theirs = described("ours"), described("tritonclient.grpc.service_pb2")
    for response in ANSWERS:
        assert theirs[response] == {}
        del ours[response]
    for name, fields in ours.items():
        assert fields.items() <= theirs[name].items(), name


def test_they_are_kserves_and_more() -> None:
    ours, theirs = described("ours"), described("kserve.protocol.grpc.grpc_predict_v2_pb2")
    shared = {name for name in ours if name in theirs} - REQUESTS
    assert {"inference.ModelInferRequest", "inference.ModelInferResponse", *ANSWERS} <= shared
    for name in REQUESTS:
        assert theirs[name]["model_name"] == ours[name]["repository_name"]
    for name in shared:
        common = ours[name].keys() & theirs[name].keys()
        assert {key: ours[name][key] for key in common} == {key: theirs[name][key] for key in common}, name


@pytest.mark.parametrize("client", ["tritonclient.grpc", "kserve"])
def test_a_client_may_be_in_the_same_process(client: str) -> None:
    ours = "import driftline.protocols.grpc.messages"
    for first, second in ((ours, f"import {client}"), (f"import {client}", ours)):
        python(f"{first}\n{second}")
