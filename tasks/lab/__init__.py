"""The practice cluster: vmhosts made of Linux namespaces, with real sshd, libvirtd and QEMU guests."""
