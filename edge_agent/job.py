"""One bundle on its way here: what of it is known, and what is to be asked for next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.download import Download
from protocol.bundle import Index, Member, VariantReference
from protocol.identifiers import Digest, ModelName
from protocol.payload import HintEntry
from protocol.topics import Topics


@dataclass(slots=True)
class Job:
    model: ModelName
    digest: Digest
    directory: Path
    """Where its files are put."""
    started: bool = False
    done: bool = False
    index: Index | None = None
    variant: VariantReference | None = None
    surveyed: bool = False
    """Whether the manifest is here; then `missing` is right once the worker has looked."""
    missing: tuple[Member, ...] = ()
    bases: Mapping[Digest, Path] = field(default_factory=dict)
    """Files that a delta may start from, as of the survey."""
    # Of the first missing member:
    entries: tuple[HintEntry, ...] | None = None
    hint: bytes = b""
    download: Download | None = None
    bad: set[Digest] = field(default_factory=set)
    """Payloads that did not decode to the signed file: never tried again."""
    gone: set[Digest] = field(default_factory=set)
    """Payloads that were cleared: not tried until there is a new hint."""
    deaths: Counter[Digest] = field(default_factory=Counter)
    """How often decoding was cut short, by payload."""

    def afresh(self) -> Job:
        """The same bundle, taken up again from what lies on disk."""
        return Job(self.model, self.digest, self.directory, bad=self.bad, deaths=self.deaths)

    def wanted(self, topics: Topics, now: float) -> tuple[str, ...]:
        """Topics that an answer is expected on."""
        if not self.started or self.done:
            return ()
        if self.index is None or self.variant is None:
            return (topics.manifest(self.model, self.digest),)
        if not self.surveyed:
            return (topics.manifest(self.model, self.variant.digest),)
        if not self.missing:
            return ()
        if self.download is None:
            return (topics.hint(self.model, self.missing[0].digest),)
        return self.download.wanted(now)

    def hint_topic(self, topics: Topics) -> str | None:
        """Subscribed as long as a file is missing: a new hint is of use at any time."""
        return topics.hint(self.model, self.missing[0].digest) if self.missing else None

    @property
    def usable(self) -> tuple[HintEntry, ...]:
        """Payloads that were neither wrong nor cleared, in the hint's order."""
        return tuple(e for e in self.entries or () if e.payload not in self.bad | self.gone)

    def next_entry(
        self, fits: Callable[[HintEntry], bool] = lambda _: True
    ) -> tuple[HintEntry | None, bool]:
        """The payload to try after the present one, and whether all others were tried before."""
        entries = self.entries or ()
        places = [n for n, e in enumerate(entries) if e in self.usable and fits(e)]
        if not places:
            return None, False
        before = self.download.entry if self.download is not None else None
        after = entries.index(before) + 1 if before is not None and before in entries else 0
        place = next((n for n in places if n >= after), places[0])
        return entries[place], before is not None and place < after
