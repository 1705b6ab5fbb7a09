"""What an operator types: one module per subject, see ../fabfile.py."""
