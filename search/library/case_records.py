"""What is known of cases beside their cells: a log beside the versions, only ever added to."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any

from search.disk.lines import append, whole_lines
from search.errors import BadQuestion, StoreError
from search.index.contract import Store
from search.index.recorded import RecordedStore
from search.library.versions import Versions, now
from search.schemas.cases import (
    WORDS,
    CaseChange,
    CaseColumn,
    CaseEdit,
    CaseFilter,
    CaseRecord,
    CaseRecordsWanted,
    CaseValues,
    ColumnType,
    Value,
)
from search.schemas.filters import Filter
from search.text import names_a_person, personal

FILE = "cases.jsonl"
"""In the folder of a collection: versions come and go, what is known of a case stays."""
FIELDS = tuple(name for name in CaseValues.model_fields if name not in ("case", "more"))
"""Columns that every collection has."""
TEXTS = ("diagnosis", "treatment", "outcome", "report")
MOST_COLUMNS = 50
FEW = 1000
"""Names up to which the store is queried for each."""
FIRST_DAY = date(1900, 1, 1)
"""Examinations before it are slips."""
COMMA = re.compile(r"-?\d+(,\d+)?")
"""A number as it is written where the decimal mark is a comma."""
YES, NO = frozenset({"yes", "true", "ja", "y"}), frozenset({"no", "false", "nein", "n"})
WANTED: Mapping[ColumnType, str] = {
    "text": "words",
    "number": "a number such as 12.5",
    "flag": "yes or no",
    "date": "a day such as 2024-03-01",
}


class BadCase(BadQuestion):
    """Records of cases that cannot be kept as they came; nothing of the call was."""


class CaseRecordsDamaged(StoreError):
    """The log of case records cannot be read."""


class CaseRecords:
    """The records of the cases of one collection.

    The log lies with the collection and not with a version, and in no shard: a correction never
    touches pixels or vectors, and a re-index, a rollback and an index made anew leave it as it
    is. One call is one line, on the disk (fsync) before `change` returns, so that a call is
    kept whole or not at all. Safe to use from many threads, and beside other processes.
    """

    def __init__(self, versions: Versions) -> None:
        self.path = versions.folder / FILE
        self._versions = versions
        self._turn = threading.Lock()
        self._seen: tuple[int, int] = (0, 0)
        """Inode of the log, and how far it was read."""
        self._clear()

    def _clear(self) -> None:
        self._values: dict[str, dict[str, Any]] = {}
        self._edits: dict[str, list[CaseEdit]] = {}
        self._columns: dict[str, ColumnType] = {}
        self._records: dict[str, CaseRecord] = {}
        self._of: dict[str, set[str]] = {}
        """Cases by patient."""
        self._named: Mapping[str, str] | None = None
        """Patients by case, once they were asked for, until a record changes."""
        self._digest: str | None = None
        """Once it was asked for, until a record changes."""

    @property
    def revision(self) -> tuple[int, int]:
        """Something that changes with the records and costs one look at the file."""
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (facts.st_ino, facts.st_size)

    def change(self, wanted: CaseRecordsWanted, store: RecordedStore, caller: str) -> int:
        """Make changes to the records of cases: all of them, or none.

        Args:
            wanted: The changes; several of one case must not contradict each other.
            store: Of the collection: every case must have items there.
            caller: Who was let in.

        Returns:
            How many cases have a record that is new or has changed.

        Raises:
            BadCase: an unknown case, two values for one field, a value of another type than its
                column has, or what seems to say who a person is.
            CaseRecordsDamaged: the log cannot be read.
        """
        changes = checked(wanted)
        _need_cases(store.items, changes)  # what they say without records
        with self._turn, self._versions.writing():
            self._read()
            self._need_columns({n for one in wanted.changes for n in one.clear} - set(FIELDS))
            columns = self._declared(wanted, changes)
            new = {}
            for case, values in changes.items():
                typed = {name: _kept(case, name, value, columns) for name, value in values.items()}
                before = self._values.get(case, {})
                after = {name: value for name, value in typed.items() if before.get(name) != value}
                if after or case not in self._values:
                    new[case] = after
            fresh = {name: type for name, type in columns.items() if name not in self._columns}
            if new or fresh:
                line = {
                    "at": now(),
                    "caller": caller,
                    "author": wanted.author,
                    "columns": fresh,
                    "cases": new,
                }
                append(self.path, json.dumps(line) + "\n")
                self._read()
        return len(new)

    def columns(self) -> tuple[CaseColumn, ...]:
        """The further columns with their types, in order of name."""
        with self._turn:
            self._read()
            return tuple(
                CaseColumn(name=name, type=self._columns[name]) for name in sorted(self._columns)
            )

    def of(self, cases: Sequence[str]) -> dict[str, CaseRecord]:
        """The records of those of `cases` that have one."""
        with self._turn:
            self._read()
            return {
                case: self._record(case) for case in dict.fromkeys(cases) if case in self._values
            }

    def all(self, where: CaseFilter | None = None) -> list[CaseRecord]:
        """Every record that meets a filter, in order of name.

        Raises:
            BadCase: the filter names a column that there is not, or a value that it cannot hold.
        """
        with self._turn:
            self._read()
            where = None if where is None else self._understood(where)
            records = [self._record(case) for case in sorted(self._values)]
        return [one for one in records if where is None or where.meets(one)]

    def labels(self, column: str) -> dict[str, Value | date]:
        """The values of a column, by case; cases without one are left out.

        Raises:
            BadCase: there is no such column.
        """
        with self._turn:
            self._read()
            self._need_columns({column} - set(FIELDS))
            found = {case: self._record(case).value(column) for case in sorted(self._values)}
        return {case: value for case, value in found.items() if value is not None}

    def patients(self) -> Mapping[str, str]:
        """The patient of each case whose record names one."""
        with self._turn:
            self._read()
            if self._named is None:
                named = [(case, patient) for patient, cases in self._of.items() for case in cases]
                self._named = dict(sorted(named))
            return self._named

    def digest(self) -> str | None:
        """Sixteen hex digits over every record as it is now; `None` where there is none."""
        with self._turn:
            self._read()
            if self._values and self._digest is None:
                content = json.dumps(self._values, sort_keys=True).encode()
                self._digest = sha256(content).hexdigest()[:16]
            return self._digest

    def cases_of(self, patients: Sequence[str]) -> set[str]:
        """The cases whose record names one of these patients."""
        wanted = set(patients)
        with self._turn:
            self._read()
            return {case for patient in wanted for case in self._of.get(patient, ())}

    def _need_columns(self, names: set[str]) -> None:
        if unknown := sorted(names - set(self._columns)):
            have = ", ".join((*FIELDS, *sorted(self._columns)))
            raise BadCase(f"cases have no column {unknown[0]!r}; there are {have}")

    def _understood(self, where: CaseFilter) -> CaseFilter:
        """A filter with the values of further columns as they are kept."""
        ranges = {*where.at_least, *where.at_most}
        if known := sorted({*where.more, *ranges} & set(FIELDS)):
            can = ", ".join((*WORDS, "date_from", "date_to"))
            raise BadCase(f"cases are chosen by {can} and further columns, not by {known[0]!r}")
        self._need_columns({*where.more, *ranges})
        for name in sorted(ranges):
            if self._columns[name] != "number":
                raise BadCase(f"column {name!r} holds {WANTED[self._columns[name]]}, no numbers")
        more = {}
        for name, values in where.more.items():
            kept = {one: _parsed(one, self._columns[name]) for one in values}
            if wrong := [one for one, there in kept.items() if there is None]:
                raise BadCase(
                    f"column {name!r} holds {WANTED[self._columns[name]]}, so no case can have "
                    f"{wrong[0]!r}"
                )
            more[name] = tuple(kept.values())
        return where.model_copy(update={"more": more})

    def _record(self, case: str) -> CaseRecord:
        if case in self._records:
            return self._records[case]
        values = self._values[case]
        self._records[case] = CaseRecord.model_validate(
            {
                "case": case,
                **{name: values.get(name) for name in FIELDS},
                "more": {n: v for n, v in values.items() if n not in FIELDS and v is not None},
                "edits": self._edits[case],
            }
        )
        return self._records[case]

    def _declared(
        self, wanted: CaseRecordsWanted, changes: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, ColumnType]:
        """The type of every further column: as declared, else as its values suggest.

        Raises:
            BadCase: a column that is declared with another type already, or too many.
        """
        columns = dict(self._columns)
        for one in wanted.columns:
            if columns.setdefault(one.name, one.type) != one.type:
                raise BadCase(
                    f"column {one.name!r} holds {WANTED[columns[one.name]]} in this collection and "
                    f"cannot hold {WANTED[one.type]}; give the new one another name"
                )
        came: dict[str, list[Value]] = {}
        for values in changes.values():
            for name, value in values.items():
                if name not in FIELDS and name not in columns:
                    came.setdefault(name, []).extend([] if value is None else [value])
        for name, new in came.items():
            if _with_commas(new):
                odd = next(word for word in new if "," in str(word))
                raise BadCase(
                    f"column {name!r} seems to hold numbers with a comma, such as {odd!r}; "
                    "write them as 12.5, or declare it as text"
                )
            columns[name] = _type_of(new)
        if len(columns) > MOST_COLUMNS:
            raise BadCase(f"cases have at most {MOST_COLUMNS} further columns, got {len(columns)}")
        return columns

    def _read(self) -> None:
        """Read what was added since; everything where the log is another file."""
        inode, size = self.revision
        if inode != self._seen[0] or size < self._seen[1]:
            self._clear()
            self._seen = (inode, 0)
        content = whole_lines(self.path, self._seen[1]) if size > self._seen[1] else b""
        for line in content.splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._seen = (0, 0)
                raise CaseRecordsDamaged(
                    f"a line of {self.path} is no change of cases ({error}); restore the file "
                    "from a backup"
                ) from error
        self._seen = (inode, self._seen[1] + len(content))

    def _take(self, line: Mapping[str, Any]) -> None:
        self._digest = self._named = None
        self._columns |= line["columns"]
        for case, after in line["cases"].items():
            values = self._values.setdefault(case, {})
            self._edits.setdefault(case, []).append(
                CaseEdit(
                    at=line["at"],
                    caller=line["caller"],
                    author=line["author"],
                    before={name: values.get(name) for name in after},
                    after=after,
                )
            )
            self._of.get(values.get("patient", ""), set()).discard(case)
            values |= after
            if values.get("patient") is not None:
                self._of.setdefault(values["patient"], set()).add(case)
            self._records.pop(case, None)


def checked(wanted: CaseRecordsWanted) -> dict[str, dict[str, Any]]:
    """The new values by case and column, rows of one case together: what needs no collection.

    Raises:
        BadCase: two rows of one case contradict each other, or what seems to say who a person is.
    """
    found: dict[str, dict[str, Any]] = {}
    for change in wanted.changes:
        plain = change.model_dump(mode="json", exclude={"case", "more", "clear"})
        values = {name: value for name, value in plain.items() if value is not None}
        values |= change.more | dict.fromkeys(change.clear)
        mine = found.setdefault(change.case, {})
        for name, value in values.items():
            if mine.setdefault(name, value) != value:
                raise BadCase(
                    f"case {change.case!r} has two values of {name}: {mine[name]!r} and {value!r}; "
                    "a case has one, so mend the table or split the case in two"
                )
        _check_day(change)
    if wanted.identifying == "refuse":
        _refuse_persons(found)
    return found


def _check_day(change: CaseChange) -> None:
    latest = (datetime.now(UTC) + timedelta(days=1)).date()  # tomorrow: it is already, somewhere
    if change.date and not FIRST_DAY <= change.date <= latest:
        raise BadCase(
            f"case {change.case!r}: date {change.date} is before 1900 or in the future; mend it"
        )


def _refuse_persons(changes: Mapping[str, Mapping[str, Any]]) -> None:
    for case, values in changes.items():
        for name, value in values.items():
            if names_a_person(name):
                raise BadCase(
                    f"column {name!r} says by its name who a person is, and is not kept; leave it "
                    "out, or rename it if it does not"
                )
            seen = personal(value) if isinstance(value, str) and name != "patient" else None
            if seen is not None:  # never the value: it may be a name
                raise BadCase(
                    f"case {case!r}: {name} seems to hold {seen}, which is not kept; take it out "
                    "of the text"
                )


def _need_cases(store: Store, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Every case has items, and they are of the patient that the change names.

    Raises:
        BadCase: names the first few that have none, or the patient.
    """
    names = list(changes)
    few = Filter(case=tuple(names)) if len(names) <= FEW else None
    there = store.facet("case", few, 10_000_000)
    if unknown := [name for name in names if name not in there]:
        if len(unknown) == 1:
            raise BadCase(
                f"case {unknown[0]!r} has no item in collection {store.name!r}; ingest its images "
                "first, or mend the name"
            )
        words = ", ".join(map(repr, unknown[:3])) + (" and more" if len(unknown) > 3 else "")
        raise BadCase(
            f"{len(unknown)} of {len(names)} cases have no item in collection {store.name!r}: "
            f"{words}; ingest their images first, or mend the names"
        )
    for case, values in changes.items():
        if (patient := values.get("patient")) is None:
            continue
        known = store.facet("patient", Filter(case=(case,)), 2)
        if known and set(known) != {patient}:
            raise BadCase(
                f"case {case!r} is said to be of patient {patient!r}, but its items are of "
                f"{' and '.join(map(repr, known))}; a case belongs to one patient"
            )


def _type_of(values: Sequence[Value]) -> ColumnType:
    """The narrowest type that all values have."""
    for type in ("flag", "number", "date"):
        if values and all(_parsed(value, type) is not None for value in values):
            return type
    return "text"


def _with_commas(values: Sequence[Value]) -> bool:
    words = [one for one in values if isinstance(one, str)]
    whole = bool(words) and len(words) == len(values) and all(map(COMMA.fullmatch, words))
    return whole and any("," in one for one in words)


def _kept(
    case: str, name: str, value: Value | None, columns: Mapping[str, ColumnType]
) -> Value | None:
    """A value as it is kept.

    Raises:
        BadCase: of another type than its column.
    """
    if value is None or name in FIELDS:
        return value
    type = columns[name]
    found = _parsed(value, type)
    if found is None:
        raise BadCase(
            f"case {case!r}: column {name!r} holds {WANTED[type]} in this collection, got "
            f"{value!r}; mend it, or give the column another name"
        )
    return found


def _parsed(value: Value, type: ColumnType) -> Value | None:
    """A value as its column keeps it; `None` where it is of another type."""
    if type == "text":
        return str(value)
    if type == "flag":
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        return True if word in YES else False if word in NO else None
    if type == "number":
        if isinstance(value, bool):
            return None
        try:
            number = float(value)
        except ValueError:
            return None
        return number if abs(number) < float("inf") else None
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        return None
