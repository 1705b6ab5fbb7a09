"""Single VMs: their definitions, where they belong, starting and stopping them."""
