package main

// The STUN server. It answers late: tailscaled 1.102.3 on the same host may have the answer before it has noted that it
// could ask, takes IPv4 for dead, and gives up its DERP connection at the next change of any network device.

import (
	"context"
	"log"
	"net"
	"net/netip"
	"time"

	"tailscale.com/net/stun"
)

const stunDelay = 3 * time.Millisecond

func serveSTUN(ctx context.Context, address netip.AddrPort) (port int, err error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
	if err != nil {
		return 0, err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	go answerSTUN(ctx, conn)
	return conn.LocalAddr().(*net.UDPAddr).Port, nil
}

func answerSTUN(ctx context.Context, conn *net.UDPConn) {
	const maxRequest = 1500
	request := make([]byte, maxRequest)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(request)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Printf("cannot read a STUN request: %v", err)
			time.Sleep(time.Second)
			continue
		}
		if transaction, err := stun.ParseBindingRequest(request[:n]); err == nil {
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			time.AfterFunc(stunDelay, func() { conn.WriteToUDPAddrPort(stun.Response(transaction, from), from) })
		}
	}
}
