"""Reports: what a run did, as one HTML page, as figures and as tables.

    RUN ─ run_load ─▶ RunData ─┬─ run_figures ─▶ Chart ─┬─ chart_svg ─▶ page
                               │                        └─ mpl_chart ─▶ matplotlib figure ─▶ SVG, PNG
                               └─ run_tables ──▶ Table ──── HTML, CSV, JSON
    run_page, page ─▶ report.html        run_report: `write_report`, `write_figures`

A `Chart` and a `Table` are plain data, made once; every output is a rendering of them. `page`, `chart*`,
`table`, `export` and the style know nothing of runs, so that other pages use them too.
"""
