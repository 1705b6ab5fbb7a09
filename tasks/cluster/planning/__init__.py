"""Plans, read off a snapshot: which VM goes where, and every reason why one cannot."""
