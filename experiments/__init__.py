"""Named experiments: the command line, figures, reports and benchmarks. Runs from the checkout."""
