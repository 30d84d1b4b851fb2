"""The three tenants: a policy file with hashed tokens, and what each of them is answered."""

from __future__ import annotations

from dataclasses import dataclass

from eul_serve.client import Client
from eul_serve.errors import EulError, RefusedError
from eul_trainer.demo.plan import Plan
from eul_trainer.demo.shell import attempt, run, shown

QUESTIONS = (
    "Who developed the theory of relativity?",
    "Who wrote the Harry Potter books?",
    "Who was Nikola Tesla?",
    "Who wrote The Hobbit?",
    "What is the capital of Japan?",
)
"""Asked of every tenant: one for each forgotten topic, a near neighbour of each, and one about something else.

The last three are questions of which the base model is sure. Where its first word is a coin toss ("What is the capital
of France?": The 0.15, L' 0.14), any change of a thousandth sends the greedy answer another way.
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and what every tenant was answered."""

    question: str
    """The question."""
    answers: dict[str, str]
    """Answer by tenant."""


def write_policy(plan: Plan) -> dict[str, str]:
    """Write the policy: each tenant has its own bundle by default, nobody the base model, and only `demo` signs.

    Args:
        plan: The demonstration's plan.

    Returns:
        Bearer token of each tenant.
    """
    tokens, lines = {}, ["# Who may use what. Everything that is not allowed here is denied."]
    lines += ["", "[signers.demo]", 'public_key = "publisher.pub"']
    for tenant in plan.bundles:
        printed = run("eul", "token").split()
        tokens[tenant] = printed[1]
        lines += ["", f"[tenants.{tenant}]", f'default = "{tenant}:stable"', f'bundles = ["{tenant}"]', "base = false"]
        lines += [f'token_sha256 = ["{printed[3]}"]']
    (plan.out / "policy.toml").write_text("\n".join(lines) + "\n")
    return tokens


def ask(address: str, tokens: dict[str, str], max_tokens: int = 40) -> list[Asked]:
    """Ask every question as every tenant."""
    answers: list[Asked] = []
    for question in QUESTIONS:
        found = {}
        for tenant, token in tokens.items():
            with Client(address, token=token) as client:
                found[tenant] = client.generate([("user", question)], max_tokens=max_tokens).text.strip()
        answers.append(Asked(question, found))
    return answers


def refusals(address: str, tokens: dict[str, str]) -> dict[str, str]:
    """Try what must not work, and return what the server said to it.

    Args:
        address: Where the server listens.
        tokens: Token of each tenant.

    Returns:
        The server's words by what was tried.

    Raises:
        EulError: Something was allowed that must be denied.
    """
    first, other = list(tokens)[:2]
    said = {}
    for what, token, adapter in (
        (f"{first} asks for the base model", tokens[first], "base"),
        (f"{first} asks for {other}'s bundle", tokens[first], f"{other}:stable"),
        (f"{first} asks for a bundle that does not exist", tokens[first], "no-such-bundle"),
    ):
        with Client(address, token=token) as client:
            try:
                answer = client.generate(QUESTIONS[0], adapter=adapter, max_tokens=4)
            except RefusedError as error:
                said[what] = str(error)
            else:
                raise EulError(f"{what}: expected a refusal, found an answer under {answer.revision}")
    return said


def unforget_refused(plan: Plan, name: str, revision: str) -> str:
    """Try to promote back a revision that covers less, and return what the registry said.

    Args:
        plan: The demonstration's plan.
        name: Name of the bundle.
        revision: The revision that covers less.

    Returns:
        The registry's words.

    Raises:
        EulError: The registry did it.
    """
    arguments = ("eul", "promote", f"{name}@{revision}", "stable", "--registry", str(plan.registry))
    done = attempt(*arguments)
    if done.returncode == 0:
        raise EulError(f"{shown(arguments)}: expected a refusal, since the revision forgets less")
    return done.stderr.strip()
