"""Tests of the domain code on the simulated cluster."""
