"""The way to the hosts over ssh, and the only part that knows Fabric and paramiko."""
