"""Asking hosts and asking them for changes: links, typed operations, all hosts at the same time."""
