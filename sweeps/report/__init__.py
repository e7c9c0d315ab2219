"""Reports of sweeps: statistics, verdicts, tables, figures, LaTeX and the page."""
