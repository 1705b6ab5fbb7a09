"""Deliberate breakages of what keeps a VM from running twice, and the proof that the tests notice each."""
