"""The flags by which an operator overrides a reason against a move or a start, as they are typed."""

#: Go on although a CD or floppy image lies on the source's own disk: the drive is empty on the target.
ALLOW_LOCAL_ISO = "--allow-local-iso"
#: Move although another definition, which is off, names the same image.
ALLOW_SHARED_IMAGE = "--allow-shared-image"
#: Move although it cannot be seen whether the target has the network device that the VM uses by macvtap.
ALLOW_MACVTAP = "--allow-macvtap"
#: Start on a host that takes no new VMs.
IGNORE_CORDON = "--ignore-cordon"
#: Plan into the memory that hosts.ini keeps for the host itself.
IGNORE_RESERVE = "--ignore-reserve"
#: Put VMs together that hosts.ini wants apart.
IGNORE_APART = "--ignore-apart"

OF_A_MOVE = (ALLOW_LOCAL_ISO, ALLOW_SHARED_IMAGE, ALLOW_MACVTAP, IGNORE_RESERVE, IGNORE_APART)
OF_A_START = (IGNORE_CORDON, IGNORE_RESERVE, IGNORE_APART, ALLOW_LOCAL_ISO)
