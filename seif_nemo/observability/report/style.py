"""The page's style sheet. Light and dark by the reader's setting; print is light; nothing is fetched."""

_LIGHT = """
  --page: #f6f6f4; --card: #ffffff; --ink: #16181d; --soft: #5b6069; --hair: #dcdcd8; --grid: #e8e8e5; --band:
  #f4f4f1;
  --good: #0f7a3d; --bad: #c0282b; --blue: #2a6fd0; --orange: #d9581f; --aqua: #12966a; --yellow: #d99200;
  --pink: #db6a97; --green: #3f7d1f; --violet: #5a48b5; --red: #d03f3e; --brown: #8a6a48; --slate: #6b7686;
  --teal: #0b8a9a; --sky: #74add8; --plum: #973f82;"""

_DARK = """
  --page: #14161a; --card: #1c1f25; --ink: #eceef2; --soft: #a2a8b3; --hair: #363b44; --grid: #2b2f37; --band:
  #22262d;
  --good: #4cc47f; --bad: #f27b78; --blue: #5598ee; --orange: #f0834a; --aqua: #33bd8e; --yellow: #e0aa33;
  --pink: #e58bb1; --green: #7fbf57; --violet: #9d8ff0; --red: #ee6e6c; --brown: #bb9a76; --slate: #96a1b2;
  --teal: #3fb9c9; --sky: #93c5ea; --plum: #c983b8;"""

_COLORS = (
    "blue",
    "orange",
    "aqua",
    "yellow",
    "pink",
    "green",
    "violet",
    "red",
    "brown",
    "slate",
    "teal",
    "sky",
    "plum",
)

STYLE = (
    f":root {{ color-scheme: light dark;{_LIGHT} }}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{{_DARK} }} }}\n"
    + "\n".join(f".c-{name} {{ --c: var(--{name}); }}" for name in _COLORS)
    + """
.c-instructor { --c: var(--orange); } .c-follower { --c: var(--blue); }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, Helvetica,
  Arial, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 4px; } h3 { font-size: 15px; margin: 22px 0 6px; }
p { margin: 6px 0; max-width: 78ch; } .soft, .lead { color: var(--soft); } .lead { margin-bottom: 14px; }
header .eyebrow { color: var(--soft); font-size: 13px; }
.state { display: inline-block; border-radius: 99px; padding: 1px 11px; margin: 8px 8px 2px 0; font-size: 13px;
  font-weight: 600; border: 1px solid var(--c); color: var(--c); }
nav { margin: 14px 0 6px; font-size: 13.5px; display: flex; flex-wrap: wrap; gap: 4px 16px; }
nav a { color: var(--blue); text-decoration: none; } nav a:hover { text-decoration: underline; }
section, details.fold { background: var(--card); border: 1px solid var(--hair); border-radius: 10px; padding: 18px
  20px;
  margin-top: 16px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(195px, 1fr)); gap: 12px; margin-top: 14px; }
.tile { background: var(--card); border: 1px solid var(--hair); border-radius: 10px; padding: 12px 16px; }
.tile .name { font-size: 13px; color: var(--soft); } .tile .number { font-size: 27px; font-weight: 650;
  line-height: 1.25; }
.tile .about { font-size: 12.5px; color: var(--soft); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 14px 28px; }
.grid > * { min-width: 0; }
figure { margin: 8px 0; min-width: 0; max-width: 640px; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: 2px; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 14px; padding: 0; margin: 2px 0; font-size:
  12.5px;
  color: var(--soft); }
.legend li { display: flex; align-items: center; gap: 6px; }
.swatch { width: 11px; height: 11px; border-radius: 3px; background: var(--c); flex: none; }
.swatch.hollow { background: none; border: 2px solid var(--c); border-radius: 50%; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: var(--ink); }
svg .tick { fill: var(--soft); } svg .value { font-weight: 600; paint-order: stroke; stroke: var(--card);
  stroke-width: 3px; }
svg .grid { stroke: var(--grid); } svg .axis { stroke: var(--soft); } svg .edge { stroke: var(--hair); }
svg .rule { stroke: var(--bad); stroke-dasharray: 5 4; } svg .band { fill: var(--band); } svg .band.clear { fill:
  none; }
svg .line { stroke: var(--c); stroke-width: 2; fill: none; stroke-linejoin: round; stroke-linecap: round; }
svg .faint { stroke-width: 1; opacity: .38; } svg .bar { fill: var(--c); }
svg .dot { fill: var(--c); stroke: var(--card); stroke-width: 1; }
svg .ring { fill: var(--card); stroke: var(--c); stroke-width: 2.5; }
.scroll { overflow-x: auto; margin: 10px 0; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
@media (min-width: 561px) { .grid table { font-size: 13px; } .grid th, .grid td { padding: 4px 7px; } }
caption { text-align: left; color: var(--soft); font-size: 12.5px; padding-bottom: 4px; }
th, td { padding: 4px 11px; border-bottom: 1px solid var(--hair); text-align: right; vertical-align: top;
  white-space: nowrap; }
th { font-weight: 600; } thead th { vertical-align: bottom; color: var(--soft); font-weight: 500; white-space:
  normal; }
th:first-child, td:first-child { text-align: left; padding-left: 2px; }
th.words { text-align: left; }
td.words { text-align: left; white-space: pre-wrap; overflow-wrap: anywhere; min-width: 150px; max-width:
  560px; }
td.heat { background: color-mix(in srgb, var(--blue) calc(var(--v) * 62%), transparent); min-width: 62px; }
.up { color: var(--good); } .down { color: var(--bad); }
.empty { color: var(--soft); border: 1px dashed var(--hair); border-radius: 8px; padding: 10px 14px; max-width:
  none; }
.notice { border-left: 4px solid var(--bad); padding: 4px 12px; margin: 8px 0; overflow-wrap: anywhere; }
.card { border: 1px solid var(--hair); border-radius: 8px; padding: 12px 14px; margin: 12px 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 12px;
  margin-top: 8px; }
.pair > div { min-width: 0; } .pair h4 { margin: 0 0 3px; font-size: 13px; color: var(--soft); font-weight: 600; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; background: var(--page);
  border-radius: 6px;
  padding: 8px 10px; max-height: 320px; overflow-y: auto; font-size: 14px; }
.asked { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; font-weight: 600; max-height: 200px;
  overflow-y: auto; }
.card .scroll { margin: 10px 0 0; } .card table { width: 100%; table-layout: fixed; }
.card td, .card th { white-space: normal; text-align: left; } .card td.words { min-width: 0; }
.mark { font-weight: 650; white-space: nowrap; } .passed { color: var(--good); } .failed { color: var(--bad); }
.missing { color: var(--soft); } .why { color: var(--soft); font-size: 12.5px; overflow-wrap: anywhere; }
details.fold > summary { cursor: pointer; font-size: 17px; font-weight: 650; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace;
  margin: 10px 0 0; }
footer { color: var(--soft); font-size: 12.5px; margin-top: 22px; }
@media (max-width: 560px) {
  main { padding: 14px 10px 40px; } section, details.fold { padding: 14px 12px; } th, td { padding: 4px 8px; }
  svg text { font-size: 14px; }
}
@media print {
  body { background: #fff; font-size: 12px; } main { max-width: none; padding: 0; } nav { display: none; }
  section, .tile, details.fold { border-color: #ccc; } section { break-inside: auto; }
  figure, .card, .tile, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .said, .asked { max-height: none; } .scroll { overflow: visible; }
  details.fold::details-content { content-visibility: visible; block-size: auto; }
  svg *, td.heat, .swatch { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
)
