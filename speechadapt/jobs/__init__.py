"""Jobs: verbs over many files, as scan, plan, run and report over frozen values."""
