package main

// Which address the next node gets: like Headscale's sequential allocation (hscontrol/db/ip.go, v0.29.2), forward from
// the last one. A freed address comes back only after a restart, and then the lowest first.

import (
	"errors"
	"fmt"
	"net/netip"

	"go4.org/netipx"
	"tailscale.com/net/tsaddr"
)

var errNoAddress = errors.New("failed to allocate IP")

type addresses struct {
	v4, v6 pool
}

// pool walks one prefix. It holds no list of what is free: the caller says what is taken.
type pool struct {
	prefix netip.Prefix
	last   netip.Addr
}

func newAddresses(v4, v6 netip.Prefix) *addresses {
	a := &addresses{v4: pool{prefix: v4.Masked()}, v6: pool{prefix: v6.Masked()}}
	a.restart()
	return a
}

// restart begins again at the lowest address, as a restart of the server does.
func (a *addresses) restart() {
	a.v4.last, a.v6.last = a.v4.prefix.Addr(), a.v6.prefix.Addr()
}

func (a *addresses) next(taken func(netip.Addr) bool) (v4, v6 netip.Addr, err error) {
	if v4, err = a.v4.next(taken); err != nil {
		return v4, v6, fmt.Errorf("allocating IPs: allocating IPv4 address: %w", err)
	}
	if v6, err = a.v6.next(taken); err != nil {
		return v4, v6, fmt.Errorf("allocating IPs: allocating IPv6 address: %w", err)
	}
	a.v4.last, a.v6.last = v4, v6
	return v4, v6, nil
}

func (p *pool) next(taken func(netip.Addr) bool) (netip.Addr, error) {
	broadcast := netipx.PrefixLastIP(p.prefix)
	for ip := p.last.Next(); p.prefix.Contains(ip) && ip != broadcast; ip = ip.Next() {
		if !taken(ip) && !isReserved(ip) {
			return ip, nil
		}
	}
	return netip.Addr{}, errNoAddress
}

// isReserved: addresses that Tailscale's own software uses.
func isReserved(ip netip.Addr) bool {
	return tsaddr.ChromeOSVMRange().Contains(ip) || ip == tsaddr.TailscaleServiceIP() || ip == tsaddr.TailscaleServiceIPv6()
}
