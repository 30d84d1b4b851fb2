"""The pure parts of the server: statuses, salts, addresses, conversions, labels."""

import itertools
import math

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve import errors
from eul_serve.address import Address
from eul_serve.engine.base import ChatMessage, Sampling
from eul_serve.errors import EulError, InputError
from eul_serve.rpc import convert
from eul_serve.rpc.auth import bearer_token
from eul_serve.rpc.generation import continuation, softmax
from eul_serve.rpc.salt import Salter
from eul_serve.rpc.status import code_of, text_of
from eul_serve.rpc.transport import TransportSettings
from eul_serve.swap.revision import Stage
from eul_serve.v1 import generation_service_pb2 as pb
from tests.eul_serve.fake_engine import FakeEngine


def test_every_error_of_the_tree_has_the_code_that_its_page_says() -> None:
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EulError)]
    for kind in tree:
        line = next(
            (line for line in (errors.__doc__ or "").splitlines() if line.strip().startswith(kind.__name__)), ""
        )
        if kind is not EulError:
            assert code_of(kind("x")).name == line.split()[-1], kind
    assert code_of(EulError("x")) is code_of(KeyError("x")) is grpc.StatusCode.INTERNAL
    assert code_of(TimeoutError()) is grpc.StatusCode.DEADLINE_EXCEEDED


def test_texts_are_one_line_and_internal_ones_stay_inside() -> None:
    assert text_of(InputError("a\nb   c"), "id", 1) == "a b c"
    assert "secret" not in text_of(KeyError("secret"), "id7", 1)
    assert "id7" in text_of(KeyError("secret"), "id7", 1)


NAMES = st.from_regex(r"[a-z0-9][a-z0-9._:-]{0,20}", fullmatch=True)


@given(st.tuples(NAMES, NAMES, NAMES), st.tuples(NAMES, NAMES, NAMES))
def test_salts_are_equal_only_for_equal_triples(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    salter = Salter(b"k" * 32)
    assert (salter.salt(*one) == salter.salt(*other)) == (one == other)
    assert salter.salt(*one) != Salter(b"j" * 32).salt(*one)


def test_a_salter_does_not_show_its_key() -> None:
    assert "secret" not in repr(Salter(b"secret"))


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:8500", "127.0.0.1", 8500, True),
        ("127.9.9.9:0", "127.9.9.9", 0, True),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:65535", "::1", 65535, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
        ("example.org:443", "example.org", 443, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.is_loopback, str(address)) == (host, port, loopback, text)


@pytest.mark.parametrize("text", ["", ":1", "host", "host:", "host:x", "host:-1", "host:65536", "::1:80", "host:²"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(InputError, match="expected HOST:PORT"):
        Address.parse(text)


def test_plaintext_stays_on_this_machine_unless_asked() -> None:
    everywhere = Address("0.0.0.0", 1)
    with pytest.raises(InputError, match="plaintext"):
        TransportSettings(listen=everywhere)
    TransportSettings(listen=everywhere, insecure=True)
    TransportSettings(listen=Address("127.0.0.1", 1))


@given(st.lists(st.floats(-500, 0), min_size=1, max_size=8))
def test_softmax_sums_to_one_and_keeps_the_order(scores: list[float]) -> None:
    found = softmax(scores)
    assert math.isclose(sum(found), 1, rel_tol=1e-9)
    for left, right in itertools.pairwise(range(len(scores))):
        assert (scores[left] <= scores[right]) == (found[left] <= found[right]) or math.isclose(
            found[left], found[right]
        )


class StartingEngine(FakeEngine):
    """Puts a token before every text, as many tokenizers do, and merges `ab`."""

    def encode(self, prompt: object) -> tuple[int, ...]:
        text = prompt if isinstance(prompt, str) else ""
        return (255, *text.replace("ab", "\x01").encode())


@pytest.mark.parametrize(
    ("prompt", "label", "expected"),
    [
        ("It was", " good", tuple(b" good")),
        ((ChatMessage(role="user", content="x"),), " good", tuple(b" good")),
        ((7, 8), "good", tuple(b"good")),
        ("a", "bc", tuple(b"bc")),  # read together they merge, so the label is read alone
    ],
)
def test_labels_are_read_as_they_follow_the_prompt(prompt: object, label: str, expected: tuple[int, ...]) -> None:
    engine = StartingEngine("sha256:" + "0" * 64)
    assert continuation(engine, prompt, engine.encode(prompt), label) == expected


def test_fields_that_are_not_set_have_the_defaults_of_the_engine() -> None:
    assert convert.sampling_of(pb.Sampling()) == Sampling()
    assert convert.sampling_of(pb.Sampling(temperature=0.0, seed=0)) == Sampling(seed=0)
    assert convert.sampling_of(pb.Sampling(stop=["x"], max_tokens=3)) == Sampling(stop=("x",), max_tokens=3)


@pytest.mark.parametrize(
    "prompt", [pb.Prompt(), pb.Prompt(chat=pb.ChatMessages(messages=[pb.ChatMessage(content="x")]))]
)
def test_a_prompt_needs_a_form_and_messages_a_role(prompt: pb.Prompt) -> None:
    with pytest.raises(InputError):
        convert.prompt_of(prompt)


def test_an_unknown_role_of_a_newer_client_is_refused() -> None:
    message = pb.ChatMessage(content="x")
    message.MergeFromString(b"\x08\x63")  # field 1, varint 99
    with pytest.raises(InputError, match="role 99"):
        convert.prompt_of(pb.Prompt(chat=pb.ChatMessages(messages=[message])))


def test_every_stage_has_a_state() -> None:
    for stage in (*Stage, None):
        assert convert.state_of(stage)


@pytest.mark.parametrize(
    ("metadata", "token"),
    [
        ((("authorization", "Bearer abc"),), "abc"),
        ((("authorization", "bearer  abc "),), "abc"),
        ((("authorization", b"Bearer abc"),), None),
        ((), None),
        (None, None),
    ],
)
def test_bearer_tokens(metadata: object, token: str | None) -> None:
    assert bearer_token(metadata) == token


def test_no_message_has_a_tenant() -> None:
    """The tenant comes from who calls, never from what is sent."""
    fields = [field for message in pb.DESCRIPTOR.message_types_by_name.values() for field in message.fields]
    assert not [field.full_name for field in fields if "tenant" in field.name]
