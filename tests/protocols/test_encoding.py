"""What came compressed is what was sent, or refused, within a bound whatever it claims to be."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import BadRequest, TooLarge
from driftline.protocols import encoding as module
from driftline.protocols.encoding import compress, decompress, response_coding

TEXT = b'{"inputs": []}'
LIMIT = 100_000


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(TEXT, mtime=0)),
        (b"GZIP", gzip.compress(TEXT, mtime=0)),
        (b"x-gzip", gzip.compress(TEXT, mtime=0)),
        (b"X-GZip", gzip.compress(TEXT, mtime=0)),
        (b"deflate", zlib.compress(TEXT)),
        (b"Deflate", zlib.compress(TEXT)),
        (b"identity", TEXT),
        (b"Identity", TEXT),
    ],
)
def test_every_name_in_any_case(encoding: bytes, body: bytes) -> None:
    assert decompress(body, encoding, len(TEXT)) == TEXT


@given(st.lists(st.binary(max_size=20) | st.binary().map(lambda part: part * 2_000), min_size=1, max_size=5))
def test_gzip_of_several_members(parts: list[bytes]) -> None:
    body, plain = b"".join(map(gzip.compress, parts)), b"".join(parts)
    assert gzip.decompress(body) == plain
    assert decompress(body, b"gzip", len(plain)) == plain
    if plain:
        with pytest.raises(TooLarge, match=f"at most {len(plain) - 1} bytes"):
            decompress(body, b"gzip", len(plain) - 1)


@pytest.mark.parametrize(
    ("encoding", "compressed"), [(b"gzip", gzip.compress(TEXT, mtime=0)), (b"deflate", zlib.compress(TEXT))]
)
@pytest.mark.parametrize("rest", [b"\0", b"\x1f", b"\x1f\x8b\x08", TEXT, b"\0" * 10_000])
def test_what_follows_the_end_is_refused(encoding: bytes, compressed: bytes, rest: bytes) -> None:
    with pytest.raises(BadRequest, match=f"the body is not valid {encoding.decode()}"):
        decompress(compressed + rest, encoding, LIMIT)


@given(st.sampled_from([b"gzip", b"deflate"]), st.data())
def test_what_is_cut_is_refused(encoding: bytes, data: st.DataObject) -> None:
    plain = data.draw(st.binary())
    compressed = gzip.compress(plain) * 2 if encoding == b"gzip" else zlib.compress(plain)
    cut = data.draw(
        st.integers(0, len(compressed) - 1).filter(lambda position: position * 2 != len(compressed))
    )
    with pytest.raises(BadRequest, match="it ends too early"):
        decompress(compressed[:cut], encoding, LIMIT)


def test_a_bomb_in_many_members_takes_no_more_than_the_bound() -> None:
    bomb = gzip.compress(b"\0" * LIMIT) * 50
    with pytest.raises(TooLarge):
        decompress(bomb, b"gzip", 2 * LIMIT)
    assert len(decompress(bomb, b"gzip", 50 * LIMIT)) == 50 * LIMIT


@pytest.mark.parametrize("encoding", [b"br", b"", b"gzip, gzip", b"\xff"])
def test_what_is_not_known_is_named(encoding: bytes) -> None:
    with pytest.raises(BadRequest, match="Content-Encoding: expected gzip or deflate, got "):
        decompress(TEXT, encoding, LIMIT)


def test_members_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    member = gzip.compress(b"a")
    assert decompress(3 * member, b"gzip", 100) == b"aaa"
    with pytest.raises(BadRequest, match="more follows its end"):
        decompress(4 * member, b"gzip", 100)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (b"gzip", b"gzip"),
        (b"Deflate", b"deflate"),
        (b"gzip;q=0.5", b"gzip"),
        (b"gzip; q=1.0, identity; q=0", b"gzip"),
        (b"br, deflate, gzip, identity;q=0.0", b"deflate"),
        (b"", None),
        (b"gzip;q=0", None),
        (b"gzip, deflate", None),
        (b"gzip, deflate, br, zstd", None),
        (b"gzip, identity", None),
        (b"br", None),
        (b"*", None),
        (b"identity;q=0", None),
        (b",;q=,;,", None),
        (b"deflate;q=0.1, gzip;q=1.0, identity;q=0", b"gzip"),
        (b"gzip;q=0.001, deflate;q=0, identity;q=0.000", b"gzip"),
        (b"gzip;q=abc", None),
        (b"gzip;q=2", None),
        (b"gzip;q=-1", None),
        (b"gzip;\tq=0", None),
        (b"gzip\t;\tq=0.5", b"gzip"),
        (b"gzip, *;q=0", b"gzip"),
    ],
)
def test_answers_are_compressed_for_who_wants_that_and_no_other(
    accepted: bytes, coding: bytes | None
) -> None:
    assert response_coding([(b"accept", b"br"), (b"accept-encoding", accepted)]) == coding
    assert response_coding([(b"accept-encoding", part) for part in accepted.split(b",")]) == coding


def test_without_a_wish_an_answer_goes_as_it_is() -> None:
    assert response_coding([(b"accept", b"gzip")]) is None


@given(st.binary(), st.sampled_from([b"gzip", b"deflate"]))
def test_what_goes_compressed_is_what_comes(content: bytes, coding: bytes) -> None:
    assert decompress(compress(content, coding), coding, len(content)) == content
