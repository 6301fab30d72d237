"""Training: verbs over many steps."""
