"""What needs whole machines: one set of them for all tests here, gone when the last one ends."""
