"""The agent that the laptop ships over ssh: Python 3.8+ and the standard library, nothing installed."""
