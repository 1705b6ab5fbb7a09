"""Carrying plans out: stop, prove, start, verify."""
