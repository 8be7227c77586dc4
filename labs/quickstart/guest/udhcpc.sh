#!/bin/sh
# Called by udhcpc: puts the lease on the interface.
case "$1" in
bound | renew)
    ip addr flush dev "$interface"
    ip addr add "$ip/${mask:-24}" dev "$interface"
    for gateway in $router; do ip route add default via "$gateway" dev "$interface" 2>/dev/null; done
    [ -n "$hostname" ] && hostname "$hostname"
    : >/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
    echo "${router%% *}" >/tmp/gateway
    echo "$ip" >/tmp/address
    # One ARP question tells the bridge and the host that the address is in use.
    [ -n "$router" ] && arping -c 1 -w 1 -I "$interface" -s "$ip" "${router%% *}" >/dev/null 2>&1
    ;;
deconfig) ip link set "$interface" up ;;
esac
