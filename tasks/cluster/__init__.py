"""The domain: hosts, VMs, plans and moves. It prints nothing, asks nothing and knows no Invoke."""
