// How the comparison's page looks: on a desk, on a phone (rows become cards), in the dark, and on paper (the mechanisms in two columns).

/** The style sheet. */
export const STYLE = `
:root { --ink: #1b1f24; --paper: #fff; --soft: #5b6570; --line: #d5dae0; --bar: #1d5fbf; --bar1: #b4530f; --bar2: #b9c7da; --known: #e8edf3; --probed: #fdf0d5; --measured: #dbf2e0; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --paper: #14171b; --soft: #9aa5b1; --line: #343b44; --bar: #6ea8ff; --bar1: #f0a35e; --bar2: #3d4a5c; --known: #2a313a; --probed: #4a3b16; --measured: #1d4228; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 110rem; font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
header p, main > p, details { max-width: 60rem; }
small { color: var(--soft); overflow-wrap: anywhere; }
code { font-size: .95em; }
.tag { font-size: .72rem; padding: .05rem .35rem; border-radius: .25rem; white-space: nowrap; }
.known { background: var(--known); } .probed { background: var(--probed); } .measured { background: var(--measured); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.25rem; max-width: 92rem; }
figure { margin: 0; break-inside: avoid; } figcaption { font-size: .85rem; color: var(--soft); margin-bottom: .4rem; } figcaption strong { color: var(--ink); font-size: .95rem; }
svg { width: 100%; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } svg text.value { font-size: 11px; } svg text.axis { font-size: 9px; fill: var(--soft); }
.s0 { fill: var(--bar); } .s1 { fill: var(--bar1); } .s2 { fill: var(--bar2); } .grid { stroke: var(--line); }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .85rem; }
th, td { border: 1px solid var(--line); padding: .4rem .5rem; vertical-align: top; text-align: left; }
thead th { background: var(--known); } tbody th { font-weight: 600; }
td p { margin: 0 0 .45rem; }
table.numbers { width: auto; } table.numbers td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
@media screen and (min-width: 60.01rem) { .matrix thead th { position: sticky; top: 0; } .matrix { table-layout: fixed; } .matrix th:first-child { width: 8rem; } }
@media screen and (max-width: 60rem) {
  table, table.numbers { display: block; width: 100%; } thead { display: none; } tbody, tr, tbody th, td { display: block; }
  tr { border: 1px solid var(--line); border-radius: .4rem; margin-bottom: 1rem; overflow: hidden; } th, td { border: 0; border-top: 1px solid var(--line); } tbody th { background: var(--known); border-top: 0; font-size: 1rem; }
  td::before { content: attr(data-title); display: block; font-weight: 600; margin-bottom: .15rem; }
  table.numbers td { display: flex; justify-content: space-between; } table.numbers td::before { font-weight: 400; color: var(--soft); margin: 0; }
}
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  :root { --ink: #000; --paper: #fff; --soft: #444; --line: #999; --bar: #1d5fbf; --bar1: #b4530f; --bar2: #b9c7da; --known: #e8edf3; --probed: #fdf0d5; --measured: #dbf2e0; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 9pt; padding: 0; max-width: none; } table { font-size: 7.5pt; } .tag { font-size: 6.5pt; }
  .plots { grid-template-columns: repeat(4, 1fr); gap: 5mm; } figcaption, figcaption strong { font-size: 8pt; } tr, figure { break-inside: avoid; } thead { display: table-header-group; } h2, h3 { break-after: avoid; }
  table { margin: 4mm 0; } th, td { padding: .2rem .4rem; }
  .matrix { columns: 2; column-gap: 8mm; } .matrix, .matrix tbody, .matrix tr, .matrix tbody th, .matrix td { display: block; } .matrix thead { display: none; }
  .matrix tr { break-inside: auto; margin-bottom: 5mm; } .matrix tbody th { background: var(--known); font-size: 9pt; break-after: avoid; }
  .matrix td { border-top: 0; padding-left: 28mm; position: relative; } .matrix td::before { content: attr(data-title); position: absolute; left: .4rem; width: 24mm; font-weight: 600; } .matrix td p { margin-bottom: .2rem; break-inside: avoid; }
}
`;
