"""The package's rooms and their imports: ``python -m scripts.import_graph``, in an environment with import-linter.

A room is a folder of modules; beside sub-folders, each module is a room of its own. A room's floor is the length of the
longest chain of imports below it, and a room of a circle has none.
Of another commit: ``PYTHONPATH=CHECKOUT python scripts/import_graph.py``.
"""

from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

import grimp
from rich.console import Console
from rich.table import Table

PACKAGE = "nemo_sspo"


def main() -> None:
    """Print a row for each folder, then the circles among rooms and among modules."""
    graph = grimp.build_graph(PACKAGE)
    arrows = {
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    packages = {name for name in graph.modules if graph.find_children(name)}
    folders = {name for name in packages if not graph.find_children(name) & packages}
    parent_of = {name: name.rpartition(".")[0] for name in graph.modules}
    room_of = {name: parent_of[name] if parent_of[name] in folders else name for name in graph.modules}
    imports = defaultdict(set)
    for importer, imported in arrows:
        if room_of[importer] != room_of[imported]:
            imports[room_of[importer]].add(room_of[imported])
    floors = _floors(imports, set(room_of.values()))
    table = Table("room", "modules", "imports inside", "imports rooms", "floor")
    for room in sorted(folders):
        inside = sum(room_of[a] == room == room_of[b] for a, b in arrows)
        modules = sum(home == room and name not in packages for name, home in room_of.items())
        table.add_row(
            room.removeprefix(f"{PACKAGE}."),
            str(modules),
            str(inside),
            str(len(imports[room])),
            str(floors.get(room, "circle")),
        )
    console = Console()
    console.print(table)
    console.print(f"{len(graph.modules) - len(packages)} modules, {len(arrows)} imports")
    for kind, edges in (("rooms", imports), ("modules", _by_importer(arrows))):
        console.print(f"circles among {kind}:", *(_circles(edges) or ["none"]), sep="\n  ")


def _by_importer(arrows: set[tuple[str, str]]) -> dict[str, set[str]]:
    edges = defaultdict(set)
    for importer, imported in arrows:
        edges[importer].add(imported)
    return edges


def _floors(imports: dict[str, set[str]], rooms: set[str]) -> dict[str, int]:
    """The floor of each room; without those of a circle and what imports them."""
    floors: dict[str, int] = {}
    while ready := [room for room in rooms - set(floors) if imports[room] <= set(floors)]:
        floors |= {room: 1 + max((floors[below] for below in imports[room]), default=-1) for room in ready}
    return floors


def _circles(edges: dict[str, set[str]]) -> list[str]:
    """One circle after another, each broken before the next is looked for."""
    left, found = {name: set(below) for name, below in edges.items()}, []
    while True:
        try:
            TopologicalSorter(left).prepare()
            return found
        except CycleError as error:
            circle = error.args[1]
            found.append(" -> ".join(reversed(circle)))
            for first, second in zip(circle[1:], circle, strict=False):
                left.get(first, set()).discard(second)
                left.get(second, set()).discard(first)


if __name__ == "__main__":
    main()
