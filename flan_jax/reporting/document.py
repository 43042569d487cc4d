"""Writes HTML pages that need no script, no font and no other file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

_STYLE = """
:root{color-scheme:light dark;--ground:#fbfaf7;--card:#fff;--ink:#22252b;--soft:#666c76;--line:#e0ddd5;--mean:#f1efe9;
--accent:#2a5db0;--held:#1b6e44;--seen:#a8341f;--unknown:#7d5f00;--right:#e2f2e5;--wrong:#fbe6e1}
@media (prefers-color-scheme:dark){:root{--ground:#16181c;--card:#1f2228;--ink:#e4e5e8;--soft:#9aa0aa;--line:#353a43;
--mean:#282c34;--accent:#86b1f5;--held:#7fd3a4;--seen:#f0957f;--unknown:#e0c060;--right:#203a28;--wrong:#472a24}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main,header{max-width:1560px;margin:0 auto;padding:0 24px}main{padding-bottom:60px}header{padding-top:20px}
h1{font-size:22px;margin:0 0 4px}h2{font-size:18px;margin:34px 0 8px;scroll-margin-top:12px}
h3{font-size:15px;margin:18px 0 6px}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:8px 0}a{color:var(--accent)}p{margin:6px 0;color:var(--soft)}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;font-size:13.5px;min-width:100%;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600;vertical-align:bottom}tr:last-child td{border-bottom:0}
th.group{text-align:center;color:var(--ink);border-left:1px solid var(--line)}
td.first,th.first{border-left:1px solid var(--line)}
th.name,td.name{text-align:left;position:sticky;left:0;background:var(--card);white-space:normal;overflow-wrap:break-word;
min-width:min(200px,38vw);max-width:min(300px,38vw)}
tr.mean td{font-weight:600;background:var(--mean)}
.marked{color:var(--seen);font-weight:600}.held{color:var(--held)}.seen{color:var(--seen)}.unknown{color:var(--unknown)}
td.text{text-align:left;white-space:pre-wrap;min-width:260px;overflow-wrap:anywhere}
figure{margin:0 0 10px;overflow-x:auto;background:#fff;border:1px solid var(--line);border-radius:8px;padding:10px}
figure img{display:block;margin:0 auto;max-width:100%;min-width:560px;height:auto}
details{border:1px solid var(--line);border-radius:8px;background:var(--card);margin:6px 0;padding:6px 12px}
summary{cursor:pointer;font-weight:600}summary small{font-weight:normal;color:var(--soft);margin-left:8px}
article{border-top:1px solid var(--line);margin-top:10px;padding-top:8px}article>p{font-size:13px}
pre{margin:6px 0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 ui-monospace,Menlo,Consolas,monospace;
max-height:340px;overflow-y:auto;padding:8px 10px;border:1px solid var(--line);border-radius:6px}
tr.answer td{background:var(--right)}tr.chosen td{background:var(--wrong)}tr.answer.chosen td{background:var(--right)}
li{margin:4px 0;overflow-wrap:anywhere}
"""


def text(value: str) -> str:
    """Escapes a text for HTML."""
    # A lone surrogate cannot be written in UTF-8.
    return html.escape(value.encode(errors="replace").decode())


def figure(svg: bytes, alternative: str, caption: str = "") -> str:
    """The HTML of a drawn figure.

    Args:
      svg: the figure as a complete SVG file.
      alternative: what it shows, for people who cannot see it.
      caption: the text above it.
    """
    image = base64.b64encode(svg).decode()
    above = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure>{above}<img alt="{text(alternative)}" src="data:image/svg+xml;base64,{image}"></figure>'


def document(title: str, sections: Sequence[tuple[str, str, str]], style: str = "", intro: str = "") -> str:
    """The HTML of a page.

    Args:
      title: the heading.
      sections: (name, heading, content as HTML) of each section. The top of the page links to them.
      style: further CSS.
      intro: HTML below the title.
    """
    links = "".join(f'<a href="#{name}">{text(heading)}</a>' for name, heading, _ in sections)
    body = "".join(
        f'<section><h2 id="{name}">{text(heading)}</h2>{content}</section>' for name, heading, content in sections
    )
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{_STYLE}{style}</style></head><body>"
        f"<header><h1>{text(title)}</h1>{intro}<nav>{links}</nav></header><main>{body}</main></body></html>\n"
    )
