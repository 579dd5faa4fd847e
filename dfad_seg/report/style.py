"""The style sheet of the HTML report, for light and dark screens, narrow ones, and paper."""

CSS = """
:root { --page: #f6f7f9; --card: #ffffff; --ink: #1c2430; --soft: #5d6878; --rule: #dde2e9; --accent: #2563a8;
  --bar: #cfe0f3; --good: #1b6e3c; --good-page: #e4f4ea; --bad: #8f2d12; --bad-page: #fdeee7;
  --c0: #2563a8; --c1: #c2571a; --c2: #2f7d4f; --c3: #8b3fa0; --c4: #8a6d00; --c5: #b3266b; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14181f; --card: #1d232d; --ink: #e6eaf0; --soft: #9aa6b6; --rule: #343d4b; --accent: #7db4f0;
    --bar: #2a4363; --good: #8fdcac; --good-page: #173226; --bad: #ffb59a; --bad-page: #40231a;
    --c0: #7db4f0; --c1: #f2a06b; --c2: #7fd1a0; --c3: #d09be0; --c4: #e0c35a; --c5: #f28fbd; }
  img { filter: brightness(0.9); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 12px; }
h3 { font-size: 0.95rem; margin: 0 0 4px; font-weight: 600; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px;
  margin-top: 18px; }
.status { margin: 0; color: var(--soft); }
.status.running { color: var(--accent); font-weight: 600; }
.claim { margin: 16px 0 0; padding: 10px 14px; border-radius: 8px; border: 1px solid var(--rule); }
section .claim { margin: 0; }
.claim.good { background: var(--good-page); color: var(--good); border-color: transparent; }
.warnings { list-style: none; margin: 0; padding: 0; }
.warnings li { background: var(--bad-page); color: var(--bad); border-radius: 8px; padding: 10px 14px; }
.warnings li + li { margin-top: 8px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 18px; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 16px; }
.tiles strong { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: 0.86rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 18px 5px 0; text-align: right; border-bottom: 1px solid var(--rule); }
.word { text-align: left; }
thead th { color: var(--soft); font-weight: 600; font-size: 0.88rem; white-space: nowrap; }
tbody th { font-weight: 500; overflow-wrap: anywhere; }
td.bar { min-width: 140px; padding: 5px 18px 5px 8px;
  background: linear-gradient(90deg, var(--bar) var(--share), transparent var(--share)); background-clip: padding-box; }
.note { color: var(--soft); font-size: 0.86rem; margin: 8px 0 0; }
.pictures { display: grid; gap: 16px; }
figure { margin: 0; min-width: 0; }
img { max-width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--rule); display: block;
  background: #fff; }
figcaption { color: var(--soft); font-size: 0.86rem; margin-top: 4px; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 22px 26px; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .raw { opacity: 0.35; stroke-width: 1; }
svg polyline.c0 { stroke: var(--c0); } svg polyline.c1 { stroke: var(--c1); } svg polyline.c2 { stroke: var(--c2); }
svg polyline.c3 { stroke: var(--c3); } svg polyline.c4 { stroke: var(--c4); } svg polyline.c5 { stroke: var(--c5); }
svg circle.c0 { fill: var(--c0); } svg circle.c1 { fill: var(--c1); } svg circle.c2 { fill: var(--c2); }
svg circle.c3 { fill: var(--c3); } svg circle.c4 { fill: var(--c4); } svg circle.c5 { fill: var(--c5); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 2px; padding: 0;
  font-size: 0.84rem; color: var(--soft); }
.legend li::before { content: ""; display: inline-block; width: 14px; height: 3px; margin-right: 6px;
  vertical-align: middle; background: var(--c0); }
.legend .c1::before { background: var(--c1); } .legend .c2::before { background: var(--c2); }
.legend .c3::before { background: var(--c3); } .legend .c4::before { background: var(--c4); }
.legend .c5::before { background: var(--c5); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; font-size: 0.92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: 14px; }
summary { cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
@media (max-width: 600px) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; } main { padding: 16px 12px; } }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
