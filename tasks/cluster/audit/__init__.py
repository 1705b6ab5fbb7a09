"""What breaks the law or has drifted, anywhere in the cluster. Only looks.

`look` asks the hosts, the modules named for their subject judge what was seen without any input or output.
"""
