"""The benchmark: vmfab beside the same work by shell and by Ansible, in one run on one machine."""
