"""Training adapters on a frozen encoder: inputs, heads, budgets, reuse of frozen layers."""
