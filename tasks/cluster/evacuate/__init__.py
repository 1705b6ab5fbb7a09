"""Starting the VMs of a dead host elsewhere: the proof, the plan, the starts."""
