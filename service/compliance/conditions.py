"""What a rule may ask of a header, and of what an image shows: the words in which requirements are written."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from service.compliance import facts, pattern

DEEPEST = 8  # expectations within expectations; nobody reads more, and what is endless must not reach a worker


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def _compiled(value: Any) -> pattern.Patterns:
    sources = _one_or_many(value)
    if not sources or not all(isinstance(source, str) and source for source in sources):
        raise ValueError("write one regular expression, or a list of them")
    try:
        return pattern.Patterns(*sources)
    except pattern.BadPattern as bad:
        raise ValueError(f"bad regular expression: {bad}") from bad


Patterns = Annotated[pattern.Patterns, BeforeValidator(_compiled)]


Records = Annotated[tuple[facts.Record, ...], BeforeValidator(_one_or_many)]


class Part(BaseModel):
    """Any table of a rule book: unknown fields are errors, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Match(Part):
    """Header conditions, all of which must hold; a list of patterns holds when one of them is found."""

    exam: Patterns | None = None  # any of body part, descriptions, protocol, procedure, view, image type
    body_part: Patterns | None = None
    study_description: Patterns | None = None
    series_description: Patterns | None = None
    protocol: Patterns | None = None
    procedure: Patterns | None = None
    view: Patterns | None = None
    laterality: Patterns | None = None
    image_type: Patterns | None = None
    modality: Patterns | None = None
    station: Patterns | None = None
    institution: Patterns | None = None
    department: Patterns | None = None
    manufacturer: Patterns | None = None
    model: Patterns | None = None
    ae_title: Patterns | None = None
    operator: Patterns | None = None
    patient_sex: Patterns | None = None
    pregnancy: Patterns | None = None  # none, possible, definite, unknown
    image: Literal["still", "cine"] | None = None
    region: facts.Region | None = None  # the header lists an ultrasound region of this data type
    records: Records = ()  # the header holds a value for each of these, whatever it is
    min_age: float | None = Field(None, ge=0)
    max_age: float | None = Field(None, ge=0)

    @cached_property
    def fields(self) -> tuple[tuple[str, pattern.Patterns], ...]:
        """The header fields asked for, with their patterns."""
        asked = ((name, getattr(self, name)) for name in type(self).model_fields)
        return tuple((name, value) for name, value in asked if isinstance(value, pattern.Patterns))

    @cached_property
    def reads_words_only(self) -> bool:
        """Whether nothing but the header's text decides it."""
        return self.model_fields_set == {name for name, _ in self.fields}

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("an empty condition matches nothing and everything; leave it out or fill it")
        if self.min_age is not None and self.max_age is not None and self.min_age > self.max_age:
            raise ValueError(f"no patient is at least {self.min_age:g} and at most {self.max_age:g} years old")
        return self


Places = Annotated[tuple[facts.Place, ...], BeforeValidator(_one_or_many)]
Matches = Annotated[tuple[Match, ...], BeforeValidator(_one_or_many)]


class Expectation(Part):
    """What an image must show; of several fields all must hold."""

    annotation: facts.Kind | None = None
    found_in: Places = ()  # such an annotation counts only from these places; none: from anywhere
    count: int = Field(1, ge=1, description="Annotations of that kind on one frame.")
    overlaps: facts.Kind | None = None  # such an annotation touches one of this kind
    clear_of: facts.Kind | None = None  # such an annotation touches none of this kind
    in_region: facts.Region | None = None  # such an annotation's centre lies in a header region of this type
    without: facts.Kind | None = None
    region: facts.Region | None = None  # the header lists an ultrasound region of this data type
    text: Patterns | None = None  # burned-in or overlaid text
    header: Match | None = None
    measurements: int | None = Field(None, ge=1, description="Measurements in an SR that refer to the image.")
    any_of: tuple[Expectation, ...] = ()
    all_of: tuple[Expectation, ...] = ()
    none_of: tuple[Expectation, ...] = ()
    words: str = ""  # what a sentence calls it

    @cached_property
    def is_simple(self) -> bool:
        """Whether it asks for one annotation somewhere on the image, as most do."""
        return self.model_fields_set <= {"annotation", "words"}

    @property
    def parts(self) -> tuple[Expectation, ...]:
        """The expectations it is put together of."""
        return (*self.any_of, *self.all_of, *self.none_of)

    @cached_property
    def depth(self) -> int:
        """How many expectations lie within each other, itself included."""
        return 1 + max((part.depth for part in self.parts), default=0)

    @property
    def asks_for_text(self) -> bool:
        """Whether it looks at what is written."""
        return self.text is not None or any(part.asks_for_text for part in self.parts)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind of annotation it looks at."""
        own = [kind for kind in (self.annotation, self.without) if kind is not None]
        own += ["text"] if self.text is not None else []
        return tuple(dict.fromkeys([*own, *(kind for part in self.parts for kind in part.kinds)]))

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set - {"count", "words"}:
            raise ValueError("nothing is expected; name an annotation, a region, a text or a header field")
        about_annotation = self.model_fields_set & {"found_in", "count", "overlaps", "clear_of", "in_region"}
        if about_annotation and self.annotation is None:
            raise ValueError(f"'{min(about_annotation)}' speaks of an annotation; say which one with 'annotation'")
        if self.depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} expectations lie within each other; make two requirements of it")
        return self
