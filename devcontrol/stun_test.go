package main

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"tailscale.com/net/stun"
)

func TestSTUNAnswersLateWithTheAddressItWasAskedFrom(t *testing.T) {
	for _, host := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()} {
		port, err := serveSTUN(t.Context(), netip.AddrPortFrom(host, 0))
		if err != nil {
			t.Logf("no STUN on %v: %v", host, err)
			continue
		}
		conn := must(net.Dial("udp", netip.AddrPortFrom(host, uint16(port)).String()))
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		conn.Write([]byte("not STUN"))
		asked, began := stun.NewTxID(), time.Now()
		conn.Write(stun.Request(asked))
		answer := make([]byte, 1500)
		n, err := conn.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < stunDelay {
			t.Errorf("the answer on %v came after %v", host, took)
		}
		transaction, seen, err := stun.ParseResponse(answer[:n])
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "transaction", transaction, asked)
		equal(t, "address", seen.String(), conn.LocalAddr().String())
	}
}
