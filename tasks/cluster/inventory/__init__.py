"""Read and check hosts.ini: the cluster that it describes, and the settings that it may hold."""
