"""Methods and allocators of other packages: an installed package that registers an entry point is a name in a grid.

Nothing of a package is imported until its name is used, so one that is broken stands in nobody else's way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

Row = TypeVar("Row")


class Table(Mapping[str, Row], Generic[Row]):
    """Name -> method or allocator: those of this project, in their order, then those of installed packages."""

    def __init__(self, axis: str, group: str, kind: type[Row], built_in: Mapping[str, Row]) -> None:
        """`axis`: what a grid calls them. `group`: of the entry points."""
        self.built_in = dict(built_in)
        self._axis, self._group, self._kind = axis, group, kind
        self._loaded: dict[str, Row] = {}

    @cached_property
    def _found(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self._group):
            found.setdefault(point.name, []).append(point)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.built_in, *self._found]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self._found

    def __getitem__(self, name: str) -> Row:
        """Raises KeyError for an unknown name, and ValueError, with the package, for one that cannot be used."""
        points = self._found.get(name, [])
        if name in self.built_in:
            if points:
                raise ValueError(f"{self._axis} {name!r}: {_package(points[0])} registers it, too; uninstall that")
            return self.built_in[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(name, points)
        return self._loaded[name]

    def package(self, name: str) -> str | None:
        """`distribution version` of the package that `name` comes from; None if it is of this project."""
        return _package(self._found[name][0]) if name in self._found else None

    def _load(self, name: str, points: list[EntryPoint]) -> Row:
        if not points:
            raise KeyError(name)
        if len(points) > 1:
            packages = " and ".join(map(_package, points))
            raise ValueError(f"{self._axis} {name!r}: {packages} both register it; uninstall one")
        point = points[0]
        try:
            row = point.load()
        except Exception as error:  # whatever another package raises when it is imported
            cause = f"{point.value}: {type(error).__name__}: {error}"
            raise ValueError(
                f"{self._axis} {name!r}: {_package(point)} cannot be loaded ({cause}); mend or uninstall it"
            ) from error
        if not isinstance(row, self._kind) or getattr(row, "name", None) != name:
            raise ValueError(
                f"{self._axis} {name!r}: {point.value} of {_package(point)} is not a {self._kind.__name__} of that "
                "name; see docs/extending.md"
            )
        return row


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
