"""Drawings as text: a few shapes, one style, readable on a light page and on a dark one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2937 }
  .title { font-size: 16px; font-weight: 600 }
  .head { font-weight: 600 }
  .quiet { fill: #6b7280; font-size: 12px }
  .line { stroke: #d1d5db; stroke-width: 1 }
  .c0 { fill: #2563eb } .c1 { fill: #64748b } .c2 { fill: #d97706 }
  .s1 { opacity: .6 } .s2 { opacity: .35 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e5e7eb }
    .quiet { fill: #9ca3af }
    .line { stroke: #4b5563 }
    .c0 { fill: #60a5fa } .c1 { fill: #94a3b8 } .c2 { fill: #fbbf24 }
  }
"""


def drawing(width: float, height: float, title: str, shapes: Sequence[str]) -> str:
    """A whole drawing; the title is what a reader hears who cannot see it."""
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img">'
    )
    return "\n".join([opening, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", *shapes, "</svg>\n"])


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Words on a line, whose base is at ``y``; ``anchor`` says which part of them is at ``x``."""
    look = f' class="{kind}"' if kind else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{look}{place}>{escape(words)}</text>'


def bar(corner: tuple[float, float], size: tuple[float, float], kind: str, hint: str) -> str:
    """A filled rectangle, from its upper left corner, that says what it is when pointed at."""
    (x, y), (width, height) = corner, size
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" rx="2" class="{kind}">'
        f"<title>{escape(hint)}</title></rect>"
    )


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    """A thin line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="line"/>'
