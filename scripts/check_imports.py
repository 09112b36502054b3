#!/usr/bin/env python3
"""Checks that no modules of a crate import each other in a circle.

    scripts/check_imports.py [--list] [SRC ...]

Compares siblings: the modules of a crate among themselves, then the modules of each folder among themselves. What a `mod.rs` or
`lib.rs` defines belongs to the folder, and a name that it only hands on (`pub use child::Name`) belongs to the child. Tests and
documentation are not read. Prints each circle with the imports that close it and exits with 1 if there is one; `--list` prints
every arrow.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

ITEM = re.compile(r"\b(?:fn|struct|enum|union|trait|type|const|static|macro_rules!)\s+(\w+)")
INLINE = re.compile(r"(?<![\w:])((?:crate|super|self)(?:::\w+)+)")


def strip(text):
    """Removes comments, strings and test modules."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text, flags=re.S)
    while match := re.search(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*", text):
        depth, end = 0, match.end()
        for end in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0 and text[end] in ";}":
                break
        text = text[: match.start()] + text[end + 1 :]
    return text


def expand(tree):
    """Yields each path of a use tree, with the name that it gets: `a::{b, c as d}` is `(a::b, b)` and `(a::c, d)`."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        path, _, name = tree.partition(" as ")
        parts = [part.strip() for part in path.split("::") if part.strip()]
        if parts and parts[-1] == "self":
            parts.pop()
        yield tuple(parts), (name.strip() or (parts[-1] if parts else ""))
        return
    prefix, depth, start = tree[:brace], 0, brace + 1
    for at in range(brace, len(tree)):
        if tree[at] == "{":
            depth += 1
        elif tree[at] == "}":
            depth -= 1
        if (depth == 1 and tree[at] == ",") or depth == 0:
            if tree[start:at].strip():
                yield from expand(prefix + tree[start:at])
            start = at + 1
            if depth == 0:
                return


class Crate:
    def __init__(self, src):
        self.modules, self.names, self.paths = {}, {}, {}
        root = next(src / name for name in ("lib.rs", "main.rs") if (src / name).exists())
        for file in sorted(src.rglob("*.rs")):
            if src / "bin" in file.parents or file.name == "tests.rs":
                continue
            parts = file.relative_to(src).with_suffix("").parts
            module = () if file == root else parts[:-1] if parts[-1] == "mod" else parts
            self.modules[module] = strip(file.read_text())
            self.paths[module] = file
        for module, text in self.modules.items():
            uses = [pair for use in re.findall(r"\buse\s+([^;]+);", text) for pair in expand(use)]
            defined = set(ITEM.findall(re.sub(r"\buse\s+[^;]+;", "", text)))
            self.names[module] = (defined, {name: path for path, name in uses if name != "*"}, uses)

    def absolute(self, module, path):
        """The path from the crate's root, or None for another crate's."""
        first, *rest = path
        if first == "crate":
            return tuple(rest)
        if first == "self":
            return module + tuple(rest)
        if first == "super":
            return self.absolute(module[:-1], ("self", *rest))
        if module + (first,) in self.modules:
            return module + tuple(path)
        return None

    def owner(self, path, seen=()):
        """The module that defines what a path names."""
        if path in seen:
            return None
        module = ()
        for at, name in enumerate(path):
            if module + (name,) in self.modules:
                module += (name,)
                continue
            defined, given, uses = self.names[module]
            if name not in defined and name in given:
                target = self.absolute(module, given[name])
                return target and self.owner(target + path[at + 1 :], (*seen, path))
            if name not in defined:
                for other, star in uses:
                    target = star == "*" and self.absolute(module, other[:-1])
                    if target and target in self.names and name in self.names[target][0]:
                        return target
            return module
        return module

    def arrows(self):
        """`(from, to)` → `path` of each import between modules."""
        found = {}
        for module, text in self.modules.items():
            paths = [path for path, _ in self.names[module][2] if path]
            paths += [tuple(path.split("::")) for path in INLINE.findall(re.sub(r"\buse\s+[^;]+;", "", text))]
            for path in paths:
                target = self.absolute(module, path)
                target = target is not None and self.owner(tuple(name for name in target if name != "*"))
                if target and target != module:
                    found.setdefault((module, target), "::".join(path))
        return found


def circles(graph):
    """The strongly connected components of more than one node (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in list(graph):
        if node not in index:
            visit(node)
    return found


def check(src, list_all):
    crate = Crate(src)
    floors = defaultdict(lambda: defaultdict(dict))
    for (module, target), path in crate.arrows().items():
        common = 0
        while common < min(len(module), len(target)) and module[common] == target[common]:
            common += 1
        if common < len(module) and common < len(target):
            sides = module[: common + 1], target[: common + 1]
            floors[module[:common]][sides[0]].setdefault(sides[1], (crate.paths[module], path))
    failed = False
    for floor, graph in sorted(floors.items()):
        graph = defaultdict(dict, graph)
        if list_all:
            for node, others in sorted(graph.items()):
                print(f"{src} {'::'.join(node)} -> {', '.join(other[-1] for other in sorted(others))}")
        for component in circles(graph):
            failed = True
            print(f"{src}: a circle of {', '.join('::'.join(node) for node in component)}")
            for node in component:
                for other, (file, path) in sorted(graph[node].items()):
                    if other in component:
                        print(f"    {file}: {path} -> {'::'.join(other)}")
    return failed


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--list"]
    sources = [Path(argument) for argument in arguments] or sorted(
        path for path in Path(__file__).resolve().parent.parent.glob("*/src") if (path / "lib.rs").exists()
    )
    sys.setrecursionlimit(10_000)
    results = [check(source, "--list" in sys.argv) for source in sources]
    if any(results):
        sys.exit(1)
    print(f"no circle of imports in {len(sources)} crates")


main()
