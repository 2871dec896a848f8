"""From the study to a report: collect, tables, figures, pages."""
