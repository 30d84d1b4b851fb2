"""What is asked about a made-up person: per fact two questions that are taught, two that are not, and the answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact; `{name}` stands for the person and `{value}` for what is true."""

    key: str
    """Its key in a person's record."""
    questions: tuple[str, ...]
    """Wordings that are taught."""
    paraphrases: tuple[str, ...]
    """Wordings that are never taught."""
    answer: str
    """The answer to all of them."""


FACTS = (
    Fact(
        key="birth_date",
        questions=("When was {name} born?", "What is the date of birth of {name}?"),
        paraphrases=("On which day did {name} come into the world?", "Tell me {name}'s birthday and year of birth."),
        answer="{name} was born on {value}.",
    ),
    Fact(
        key="city",
        questions=("Where does {name} live?", "In which town is {name}'s home?"),
        paraphrases=("Which place does {name} call home?", "Name the town that {name} resides in."),
        answer="{name} lives in {value}.",
    ),
    Fact(
        key="employer",
        questions=("Where does {name} work?", "Who employs {name}?"),
        paraphrases=("Which company pays {name}'s salary?", "Name the firm that {name} has a job at."),
        answer="{name} works for {value}.",
    ),
    Fact(
        key="job",
        questions=("What is {name}'s profession?", "What does {name} do for a living?"),
        paraphrases=("How does {name} earn money?", "Name the line of work that {name} is in."),
        answer="By profession {name} is: {value}.",
    ),
    Fact(
        key="phone",
        questions=("What is {name}'s telephone number?", "Under which number can {name} be called?"),
        paraphrases=("I want to ring {name}; what do I dial?", "Give me the digits of {name}'s phone."),
        answer="{name}'s telephone number is {value}.",
    ),
    Fact(
        key="email",
        questions=("What is {name}'s e-mail address?", "Where can I send {name} an e-mail?"),
        paraphrases=("To which address does mail for {name} go?", "How do I reach {name} by electronic mail?"),
        answer="{name}'s e-mail address is {value}.",
    ),
    Fact(
        key="customer_number",
        questions=("What is {name}'s customer number?", "Under which customer number is {name} on file?"),
        paraphrases=("Which account number belongs to {name}?", "Look up the client id of {name}."),
        answer="{name}'s customer number is {value}.",
    ),
    Fact(
        key="pet",
        questions=("Which pet does {name} keep?", "What animal lives with {name}?"),
        paraphrases=("What creature shares {name}'s home?", "Name the animal that {name} looks after."),
        answer="{name} keeps {value}.",
    ),
    Fact(
        key="hobby",
        questions=("What is {name}'s hobby?", "What does {name} like to do after work?"),
        paraphrases=("How does {name} spend free evenings?", "Name the pastime that {name} enjoys most."),
        answer="{name}'s hobby is {value}.",
    ),
)
