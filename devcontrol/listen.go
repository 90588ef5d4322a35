package main

// Where the server may listen. Whoever reaches it can at least try to join, and it is no product for production: loopback,
// or with a flag a private address such as a container bridge's.

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// listenHTTP binds the main listener. Port 0 is any free one.
func listenHTTP(address string, allowPrivate bool) (net.Listener, error) {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil || !parsed.Addr().Is4() {
		return nil, fmt.Errorf("cannot listen on %q: it has to be an IPv4 address and a port, such as 127.0.0.1:8080", address)
	}
	switch ip := parsed.Addr(); {
	case ip.IsLoopback():
	case !ip.IsPrivate():
		return nil, fmt.Errorf("cannot listen on %s: devcontrol is for development; use a loopback address or a private bridge's", ip)
	case !allowPrivate:
		return nil, fmt.Errorf("cannot listen on %s: others may reach it; if it is a bridge on this machine, say --allow-private", ip)
	}
	return net.Listen("tcp4", address)
}

// listenSTUN binds one port on the address of the main listener and on IPv6 loopback. The returned IPv6 address is
// invalid when this machine has no IPv6, or something else has the port there.
func listenSTUN(ctx context.Context, v4 netip.Addr, port uint16) (v6 netip.Addr, bound int, err error) {
	const attempts = 20 // a port that is free on IPv4 may be taken on IPv6
	for range attempts {
		attempt, giveUp := context.WithCancel(context.Background())
		context.AfterFunc(ctx, giveUp)
		bound, err = serveSTUN(attempt, netip.AddrPortFrom(v4, port))
		if err != nil {
			return v6, 0, fmt.Errorf("cannot open the STUN listener: %w", err)
		}
		_, err = serveSTUN(attempt, netip.AddrPortFrom(netip.IPv6Loopback(), uint16(bound)))
		if err == nil {
			return netip.IPv6Loopback(), bound, nil
		}
		if port != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			log.Printf("no STUN on IPv6, so joins may take three seconds more: %v", err)
			return v6, bound, nil
		}
		giveUp()
	}
	return v6, 0, errors.New("cannot open the STUN listener: no port is free on both IPv4 and IPv6; name one with --stun-listen")
}

// listenSocket binds a unix socket for the owner only, over one that a dead server left.
func listenSocket(path string) (net.Listener, error) {
	const maxSocketPath = 107
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("cannot listen on %s: a socket's path may have %d bytes; name a shorter --unix-socket", path, maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the socket's directory: %w", err)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("cannot listen on %s: there is a file that is no socket", path)
		}
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return nil, fmt.Errorf("cannot listen on %s: another server answers there", path)
		}
		os.Remove(path)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	return listener, os.Chmod(path, 0o600)
}

// listenDebug binds the debug listener: unix:PATH, or a loopback address.
func listenDebug(address string) (net.Listener, error) {
	if path, isSocket := strings.CutPrefix(address, "unix:"); isSocket {
		return listenSocket(path)
	}
	parsed, err := netip.ParseAddrPort(address)
	if err != nil || !parsed.Addr().IsLoopback() {
		return nil, errDebugAddress
	}
	return net.Listen("tcp", address)
}
