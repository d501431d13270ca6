"""Mermaid flow charts as SVG while the site is built: the theme would load a script of 3 MB from elsewhere to draw them.

Only what our pages use: `flowchart LR` or `TD`, `id["label<br>more"]`, `a --> b`, `subgraph id ["label"]` ... `end` (drawn without a frame). Nodes
stand in ranks by their longest way from a root; within a rank in the order of the page.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

CHARACTER, LINE, PAD, GAP, RANK_GAP = 7.2, 18, 8, 24, 30  # pixels
WIDEST = 900

NODE = re.compile(r'(\w+)\["(.*?)"\]')
EDGE = re.compile(r"^(\w+)(?:\[.*?\])?\s*-->\s*(\w+)")


@dataclass
class Node:
    """A box: its lines of text, and where its middle is."""

    lines: list[str]
    rank: int = 0
    x: float = 0.0
    y: float = 0.0
    above: list[str] = field(default_factory=list)

    @property
    def width(self) -> float:
        return max(map(len, self.lines)) * CHARACTER + 2 * PAD

    @property
    def height(self) -> float:
        return len(self.lines) * LINE + 2 * PAD


def read(source: str) -> tuple[bool, dict[str, Node]]:
    """(whether it flows to the right, id -> node with the ids of its predecessors).

    Raises:
        ValueError: the chart has a circle, or is no flow chart.
    """
    lines = [line.strip() for line in source.strip().splitlines()]
    if lines[0] not in ("flowchart LR", "flowchart TD"):
        raise ValueError(f"'{lines[0]}' is no chart that can be drawn")
    nodes: dict[str, Node] = {}
    for line in lines[1:]:
        if line.startswith("subgraph") or line == "end":
            continue
        for name, label in NODE.findall(line):
            nodes[name] = Node(label.split("<br>"))
        for name in re.findall(r"\w+", NODE.sub(r"\1", line)):
            nodes.setdefault(name, Node([name]))
        if edge := EDGE.match(line):
            nodes[edge[2]].above.append(edge[1])
    for _ in range(len(nodes) + 1):
        moved = False
        for node in nodes.values():
            rank = max((nodes[name].rank + 1 for name in node.above), default=0)
            moved, node.rank = moved or rank != node.rank, rank
        if not moved:
            return lines[0].endswith("LR"), nodes
    raise ValueError("the chart has a circle")


def place(right: bool, nodes: dict[str, Node]) -> tuple[float, float]:
    """Gives every node its middle; the width and height of the picture."""
    ranks = [[node for node in nodes.values() if node.rank == rank] for rank in range(1 + max(node.rank for node in nodes.values()))]
    along = (lambda node: node.width) if right else (lambda node: node.height)
    across = (lambda node: node.height) if right else (lambda node: node.width)
    breadth = max(sum(map(across, rank)) + GAP * (len(rank) - 1) for rank in ranks)
    depth = 0.0
    for rank in ranks:
        thick = max(map(along, rank))
        at = (breadth - sum(map(across, rank)) - GAP * (len(rank) - 1)) / 2
        for node in rank:
            middle = at + across(node) / 2
            node.x, node.y = (depth + thick / 2, middle) if right else (middle, depth + thick / 2)
            at += across(node) + GAP
        depth += thick + RANK_GAP
    depth -= RANK_GAP
    return (depth, breadth) if right else (breadth, depth)


def svg(source: str) -> str:
    """The chart as an SVG that takes its colours from the page."""
    right, nodes = read(source)
    width, height = place(right, nodes)
    if right and width > WIDEST:  # a page is narrow and long
        right = False
        width, height = place(right, nodes)
    parts = []
    for node in nodes.values():
        for name in node.above:
            start, bend = nodes[name], RANK_GAP / 2
            if right:
                x1, y1, x2, y2 = start.x + start.width / 2, start.y, node.x - node.width / 2, node.y
                path = f"M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
            else:
                x1, y1, x2, y2 = start.x, start.y + start.height / 2, node.x, node.y - node.height / 2
                path = f"M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
            parts.append(f'<path d="{path}" marker-end="url(#tip)"/>')
    for node in nodes.values():
        left, top = node.x - node.width / 2, node.y - node.height / 2
        parts.append(f'<rect x="{left:.0f}" y="{top:.0f}" width="{node.width:.0f}" height="{node.height:.0f}" rx="5"/>')
        for i, line in enumerate(node.lines):
            middle = top + PAD + LINE * (i + 0.72)
            parts.append(f'<text x="{node.x:.0f}" y="{middle:.0f}">{html.escape(html.unescape(line))}</text>')
    names = ", ".join(" ".join(node.lines) for node in nodes.values())
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker>'
    return (
        f'<div class="diagram"><svg viewBox="-2 -2 {width + 4:.0f} {height + 4:.0f}" width="{width + 4:.0f}" role="img"'
        f' aria-label="{html.escape("Flow chart: " + names)}"><defs>{tip}</defs>{"".join(parts)}</svg></div>'
    )
