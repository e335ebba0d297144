"""A retention policy: how long whose bytes are kept, in TOML.

    name = "hospital"

    [[rules]]
    name = "demonstrations"
    keep_days = 30
    synthetic = true

    [[rules]]
    name = "complete studies of the north wing"
    keep_days = 730
    institutions = ["North Wing"]
    verdicts = ["compliant", "not_applicable"]

The first rule that fits a study decides. A study that no rule fits is kept for ever.
"""

import tomllib
from datetime import date
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.compliance.outcome import Verdict
from service.errors import PolicyError

Names = Annotated[tuple[str, ...], Field(default=())]


class Traits(BaseModel):
    """What rules may ask of a study."""

    institution: str
    station: str
    calling_ae_title: str
    modalities: frozenset[str]
    verdict: Verdict | None
    synthetic: bool
    study_date: date | None


class Rule(BaseModel):
    """Bytes of the studies that fit are kept this many days after the last image came."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=128)
    keep_days: int = Field(ge=1, le=36_525)
    institutions: Names
    stations: Names
    calling_ae_titles: Names
    modalities: Names
    verdicts: tuple[Verdict, ...] = ()
    synthetic: bool | None = None

    def fits(self, study: Traits) -> bool:
        """Whether every condition that the rule makes holds."""
        named = (
            (self.institutions, study.institution),
            (self.stations, study.station),
            (self.calling_ae_titles, study.calling_ae_title),
        )
        return (
            all(not wanted or has in wanted for wanted, has in named)
            and (not self.modalities or study.modalities <= set(self.modalities))
            and (not self.verdicts or study.verdict in self.verdicts)
            and (self.synthetic is None or study.synthetic is self.synthetic)
        )


class Policy(BaseModel):
    """Rules in the order in which they are asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    rules: tuple[Rule, ...] = Field(min_length=1)

    def rule_for(self, study: Traits) -> Rule | None:
        """The rule that decides about the study; None: it is kept for ever."""
        return next((rule for rule in self.rules if rule.fits(study)), None)

    @property
    def shortest_days(self) -> int:
        return min(rule.keep_days for rule in self.rules)


def parse(toml: str) -> Policy:
    """Raises PolicyError that names the place and what is wrong there."""
    try:
        return Policy.model_validate(tomllib.loads(toml))
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"The retention policy is no TOML: {error}.", cure="Correct that line.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
        raise PolicyError(
            f"The retention policy is wrong at {where}: {first['msg']}.",
            cure="The rules' fields are explained in docs/operate.md.",
        ) from error


def digest(toml: str) -> str:
    """What tells one version of a policy from another."""
    return sha256(toml.encode()).hexdigest()
