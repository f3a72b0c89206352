"""The page's style sheet: light and dark, from phone to desktop, and on paper."""

CSS = """
:root { --ink:#1c2430; --soft:#5b6675; --line:#d5dbe3; --paper:#f5f7f9; --card:#fff;
  --accent:#0072b2;
  --right:#00845f; --wrong:#c4390f; --query:#0072b2; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink:#e4e9f0; --soft:#9aa6b5; --line:#39434f;
  --paper:#12171d; --card:#1b222b; --accent:#5db4e8; --right:#2fc096; --wrong:#ff7d55;
  --query:#5db4e8; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin:0; background:var(--paper); color:var(--ink);
  font:15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans",
  sans-serif; }
header, main, footer { max-width:1280px; margin:0 auto; padding:0 24px; }
header { padding-top:28px; }
h1 { font-size:1.9rem; line-height:1.2; margin:0 0 .2rem; overflow-wrap:anywhere; }
h2 { font-size:1.35rem; margin:2.6rem 0 .6rem; padding-top:.8rem;
  border-top:2px solid var(--line);
  overflow-wrap:anywhere; }
h3 { font-size:1.02rem; margin:1.2rem 0 .4rem; overflow-wrap:anywhere; }
h4, h5 { font-size:.95rem; margin:0 0 .15rem; }
h5 { font-weight:600; color:var(--soft); font-size:.85rem; }
h3 small, h4 small { font-weight:400; color:var(--soft); font-size:.85rem; }
.kind { margin:0; color:var(--accent); font-weight:600; }
.facts { margin:.1rem 0 1rem; color:var(--soft); }
.note { color:var(--soft); margin:.2rem 0 .7rem; font-size:.87rem; max-width:78ch; }
nav { display:flex; flex-wrap:wrap; gap:.4rem; margin:1.2rem 0 0; }
nav a { color:var(--accent); text-decoration:none; padding:.25rem .7rem;
  border:1px solid var(--line);
  border-radius:99px; background:var(--card); font-size:.88rem; }
nav a:hover, nav a:focus-visible { border-color:var(--accent); }
.tiles { display:grid; grid-template-columns:repeat(auto-fit, minmax(150px, 1fr)); gap:12px; }
.tile { background:var(--card); border:1px solid var(--line); border-radius:10px;
  padding:12px 16px; }
.tile h3 { margin:0; font-size:.85rem; color:var(--soft); font-weight:500; }
.tile p { margin:.05rem 0; } .tile b { font-size:1.75rem; line-height:1.2; }
.tile small { color:var(--soft); }
.legend { list-style:none; display:flex; flex-wrap:wrap; gap:.3rem 1.4rem; padding:0;
  margin:.2rem 0 .8rem; }
.legend li { display:flex; align-items:center; gap:.5rem; overflow-wrap:anywhere; }
.legend svg { width:28px; height:8px; flex:none; }
.charts { display:grid; grid-template-columns:repeat(auto-fill, minmax(min(340px, 100%), 1fr));
  gap:14px; }
.charts.wide { grid-template-columns:repeat(auto-fill, minmax(min(460px, 100%), 1fr)); }
.card { background:var(--card); border:1px solid var(--line); border-radius:10px;
  padding:12px 14px;
  min-width:0; }
.card h3 { margin-top:0; } .card > svg { display:block; width:100%; height:auto; }
.card .note { margin-bottom:.2rem; }
.sheets { display:grid; grid-template-columns:repeat(auto-fill, minmax(min(380px, 100%), 1fr));
  gap:14px; }
.shots { display:flex; flex-wrap:wrap; gap:8px 6px; align-items:flex-end; }
.shot { margin:0; width:54px; text-align:center; }
.shot img, .shot .missing { display:block; width:54px; height:auto; max-height:108px;
  object-fit:contain;
  border:3px solid transparent; border-radius:5px; background:var(--line); }
.shot .missing { height:96px; font-size:.7rem; color:var(--soft); padding-top:34px; }
.shot figcaption { font-size:.72rem; color:var(--soft); white-space:nowrap;
  font-variant-numeric:tabular-nums; line-height:1.3; margin-top:1px; }
.shot.right img { border-color:var(--right); } .shot.right figcaption { color:var(--right); }
.shot.wrong img, .shot.odd img { border-color:var(--wrong); border-style:dashed; }
.shot.wrong figcaption, .shot.odd figcaption { color:var(--wrong); }
.shot.query img { border-color:var(--query); border-style:double; }
.key { font-weight:700; } .key.right { color:var(--right); } .key.wrong { color:var(--wrong); }
.asked { display:flex; gap:18px; align-items:flex-start; padding:10px 14px; margin-bottom:10px;
  background:var(--card); border:1px solid var(--line); border-radius:10px; }
.asked > .shot { flex:none; } .grow { flex:1; min-width:0; } .answers + .answers {
  margin-top:.6rem; }
.asked > .shot { margin-top:1.35rem; }
@media (min-width:1000px) { .asked .shot, .asked .shot img { width:86px; }
  .asked .shot img { max-height:172px; } .asked .shot figcaption { font-size:.8rem; } }
.pair { display:flex; background:var(--card); border:1px solid var(--line); border-radius:8px;
  padding:6px 6px 4px; gap:2px; }
.scroll { overflow-x:auto; max-width:100%; }
table { border-collapse:collapse; font-size:.85rem; }
th, td { padding:.28rem .6rem; text-align:left; border-bottom:1px solid var(--line);
  vertical-align:top; overflow-wrap:anywhere; }
thead th { color:var(--soft); font-weight:600; white-space:nowrap; }
tbody th { font-weight:500; white-space:nowrap; }
.figures td, .heat td, .figures thead th:not(:first-child), .heat thead th:not(:first-child) {
  text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap; }
.best { font-weight:700; }
.heat td { background:color-mix(in srgb, var(--accent) calc(var(--level, 0) * 62%), transparent);
  border:1px solid var(--card); min-width:2.8em; text-align:center !important; }
.heat th { white-space:nowrap; }
details { margin:.5rem 0; } details[open] > .scroll { max-height:420px; overflow:auto; }
summary { cursor:pointer; color:var(--accent); font-size:.88rem; overflow-wrap:anywhere; }
footer { padding-top:2rem; padding-bottom:2rem; color:var(--soft); font-size:.85rem; }
@media (max-width:600px) {
  header, main, footer { padding-left:14px; padding-right:14px; }
  header { padding-top:16px; } h1 { font-size:1.45rem; } .tiles { grid-template-columns:1fr 1fr;
  gap:8px; }
  .tile { padding:9px 12px; } .tile b { font-size:1.4rem; }
  .asked { gap:10px; padding:10px; } .shots { gap:8px 4px; }
  .answers .shots { flex-wrap:nowrap; overflow-x:auto; } .answers .shot { flex:none; }
}
@media print { nav, details { display:none; } .card, .asked { break-inside:avoid; } }
"""
