#!/bin/sh
# Baseline (a): the facts that `fab status` shows, host after host.
#
# status.sh HOW SSH_CONFIG HOST...     HOW: each (ssh per command), joined (one ssh per host), list (only the VMs)
set -eu
how=$1 config=$2
shift 2

on() {
    ssh -n -F "$config" "$@"
}

vms='virsh list --all'
states='virsh domstats --raw --state --balloon --vcpu'
memory='virsh nodememstats'
store='df -k /vmstorage'
load='uptime'
since='ps -C qemu-system-x86 -o lstart=,args='
for host; do
    case $how in
        each)
            for command in "$vms" "$states" "$memory" "$store" "$load" "$since"; do
                on "$host" "$command"
            done
            ;;
        joined) on "$host" "$vms; $states; $memory; $store; $load; $since" ;;
        list) on "$host" "$vms" ;;
    esac
done
