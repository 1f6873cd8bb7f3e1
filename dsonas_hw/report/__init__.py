"""Reports: what a run or a study did, as one HTML page, as figures and as tables.

    RUN, STUDY ─▶ what is known ─▶ parts: Chart, Table, Drawing, Facts … ─┬─ page ─────────▶ report.html
                                                                          └─ export ▶ SVG, PNG, CSV, JSON
    Chart ─ chart_figure ─▶ matplotlib figure, which notebooks, files and (by chart_svg) pages show

A `Chart` and a `Table` are plain data, made once; every output is a rendering of them. `parts`, `page`,
`chart*`, `table` and `export` know nothing of runs: all pages are made of the same parts.
"""
