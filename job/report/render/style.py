"""The stylesheet of report.html."""

CSS = """
:root {
  color-scheme: light;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  --paper: #ffffff; --panel: #f5f6f8; --line: #d9dde3;
  --ink: #1b1f24; --muted: #5c6570; --faint: #98a0a9;
  --fp32: #4a74b5; --qat-fake: #e0a030; --int8: #138a6b;
  --part-1: #5b4b9a; --part-2: #9385cc; --part-3: #2f8fa8; --part-4: #8ec6d3; --part-5: #c9b458;
  --part-6: #d9633b;
  --good: #0f7a4d; --bad: #b3261e; --warn: #8a5a00; --warn-panel: #fff6e0;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    color-scheme: dark;
    --paper: #14171b; --panel: #1d2127; --line: #353b44;
    --ink: #e6e9ed; --muted: #a3abb5; --faint: #6b7480;
    --fp32: #6f9fe0; --qat-fake: #e8b14f; --int8: #3cc39a;
    --part-1: #8d7bd6; --part-2: #bbaef0; --part-3: #4fb6cf; --part-4: #a9dbe6; --part-5: #d8c66e;
    --part-6: #f0875f;
    --good: #4cc38a; --bad: #ff8a80; --warn: #f2c66d; --warn-panel: #2e2716;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 var(--font); }
main { max-width: 1000px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 24px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 44px 0 10px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 22px 0 6px; }
p { margin: 8px 0; overflow-wrap: anywhere; }
.made, .note, figcaption { color: var(--muted); font-size: 13px; }
.headline { font-size: 17px; max-width: 60em; }
.notice { background: var(--warn-panel); color: var(--warn); padding: 8px 12px;
  border-left: 4px solid var(--warn); margin: 8px 0; }
.info { background: var(--panel); color: var(--muted); padding: 6px 12px; font-size: 14px;
  border-left: 4px solid var(--line); margin: 8px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr));
  gap: 12px; margin: 18px 0; }
.card { background: var(--panel); border-radius: 8px; padding: 12px 14px; border-top: 4px solid
  var(--line); }
.card b { display: block; font-size: 25px; line-height: 1.25; margin: 2px 0; }
.card span { display: block; font-size: 13px; color: var(--muted); white-space: pre-line; }
.good { border-top-color: var(--good); } .good b { color: var(--good); }
.bad { border-top-color: var(--bad); } .bad b { color: var(--bad); }
.warn { border-top-color: var(--warn); } .warn b { color: var(--warn); }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 18px 0; font-size: 13px; }
a { color: var(--fp32); }
summary { cursor: pointer; color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; border-bottom-color: var(--faint); vertical-align: bottom; }
th:not(:first-child), td:not(:first-child) { padding-left: 14px; }
td { min-width: 6.5em; }
th { overflow-wrap: normal; }
.dense { font-size: 12.5px; }
.dense th:nth-child(n), .dense td:nth-child(n) { padding-left: 0; padding-right: 13px; }
.dense td { min-width: 0; overflow-wrap: normal; }
.n { text-align: right; min-width: 0; white-space: nowrap; }
.name { white-space: nowrap; }
.failed { color: var(--bad); font-weight: 700; }
.digest { font: 12px/1.6 var(--mono); }
figure { margin: 16px 0 8px; }
figure svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
pre { background: var(--panel); padding: 12px 14px; border-radius: 8px; font: 12px/1.5 var(--mono);
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 720px) {
  .cards { grid-template-columns: repeat(2, 1fr); }
  figure { overflow-x: auto; }
  /* As wide as on a large screen: narrow columns of text would make the rows tall. */
  .scroll table { width: max-content; max-width: 952px; }
  figure svg { min-width: 620px; }
}
@media print {
  @page { margin: 14mm; }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  .card b { font-size: 15pt; }
  th.n { white-space: normal; }
  h2, h3 { break-after: avoid; }
  figure, .card, tr, .notice, .info { break-inside: avoid; }
  .scroll { overflow: visible; }
}
""".strip()
