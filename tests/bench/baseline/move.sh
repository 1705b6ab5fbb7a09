#!/bin/sh
# Baseline (a): what an admin types to empty a host, as a script: ssh per command, one VM after another.
#
# move.sh SSH_CONFIG SOURCE 'TARGET...' [VM...]     without VM: all that run on SOURCE, in turn to the targets
#
# Defines on the target before the shutdown, so that this costs no downtime. Prints when each end was seen.
set -eu
config=$1 source=$2 targets=$3
shift 3

on() {
    ssh -n -F "$config" "$@"
}

if [ $# = 0 ]; then
    # shellcheck disable=SC2046  # one word per VM is what is wanted; an admin's VMs have plain names
    set -- $(on "$source" virsh list --name)
fi
left=
for vm; do
    left=${left:-$targets}
    target=${left%% *}
    case $left in
        *' '*) left=${left#* } ;;
        *) left= ;;
    esac
    on "$source" virsh dumpxml --inactive --security-info "$vm" |
        ssh -F "$config" "$target" virsh define /dev/stdin
    on "$source" virsh shutdown "$vm"
    until [ "$(on "$source" virsh domstate "$vm")" = 'shut off' ]; do
        sleep 1
    done
    echo "seen $vm $(date +%s.%N)"
    on "$target" virsh start "$vm"
done
