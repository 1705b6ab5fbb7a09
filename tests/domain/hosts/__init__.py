"""Hosts are set up, guarded and rebooted on the simulated cluster."""
