package main

import (
	"errors"
	"net/netip"
	"testing"
)

func TestAddressesGoForward(t *testing.T) {
	taken := map[netip.Addr]bool{}
	allocator := newAddresses(netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fd7a:115c:a1e0::/48"))
	next := func() string {
		v4, v6, err := allocator.next(func(ip netip.Addr) bool { return taken[ip] })
		if err != nil {
			t.Fatal(err)
		}
		taken[v4], taken[v6] = true, true
		return v4.String() + " " + v6.String()
	}
	equal(t, "first", next(), "100.64.0.1 fd7a:115c:a1e0::1")
	equal(t, "second", next(), "100.64.0.2 fd7a:115c:a1e0::2")
	clear(taken)
	equal(t, "after everything is free", next(), "100.64.0.3 fd7a:115c:a1e0::3")
	allocator.restart()
	equal(t, "after a restart", next(), "100.64.0.1 fd7a:115c:a1e0::1")
	equal(t, "after that", next(), "100.64.0.2 fd7a:115c:a1e0::2")
	equal(t, "over one that is taken", next(), "100.64.0.4 fd7a:115c:a1e0::4")
}

func TestAddressesRunOutUntilARestart(t *testing.T) {
	allocator := newAddresses(netip.MustParsePrefix("100.64.0.0/30"), netip.MustParsePrefix("fd7a:115c:a1e0::/48"))
	free := func(netip.Addr) bool { return false }
	for range 2 { // the network's own address and the broadcast address are nobody's
		if _, _, err := allocator.next(free); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := allocator.next(free); !errors.Is(err, errNoAddress) {
		t.Errorf("a third address of two: %v", err)
	}
	allocator.restart()
	if v4, _, err := allocator.next(free); err != nil || v4.String() != "100.64.0.1" {
		t.Errorf("after a restart: %v %v", v4, err)
	}
}

func TestAddressesOfTailscaleAreNotGiven(t *testing.T) {
	allocator := newAddresses(netip.MustParsePrefix("100.100.100.96/29"), netip.MustParsePrefix("fd7a:115c:a1e0::52/123"))
	for range 5 {
		v4, v6, err := allocator.next(func(netip.Addr) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		if v4.String() == "100.100.100.100" || v6.String() == "fd7a:115c:a1e0::53" {
			t.Errorf("gave %s and %s", v4, v6)
		}
	}
}

func TestFreedAddressesComeBackAfterARestart(t *testing.T) {
	ts := startServer(t)
	address := func(id string) string { return strs(ts.node(id)["ipAddresses"])[0] }
	first := ts.join(ts.machine("one"), "tag:agent")
	second := ts.join(ts.machine("two"), "tag:agent")
	equal(t, "first", address(first), "100.64.0.1")
	equal(t, "second", address(second), "100.64.0.2")
	ts.api("DELETE", "/api/v1/node/"+first, "")
	equal(t, "while it runs", address(ts.join(ts.machine("three"), "tag:agent")), "100.64.0.3")
	ts = ts.restart()
	equal(t, "after a restart", address(ts.join(ts.machine("four"), "tag:agent")), "100.64.0.1")
	equal(t, "then", address(ts.join(ts.machine("five"), "tag:agent")), "100.64.0.4")
}
