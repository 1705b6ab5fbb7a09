"""What vmfab keeps on the shared store: journals, locks, cordons, and how they are reached."""
