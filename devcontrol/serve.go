package main

// The command serve: flags, listeners, and running until a signal or the end of the parent.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const banner = "devcontrol " + Version + ": a DEVELOPMENT control server. It is NOT Headscale: not for production, not for untrusted networks."

type serveFlags struct {
	listen, serverURL, stateDir, unixSocket, debugListen string
	prefixV4                                             netip.Prefix
	stunPort                                             uint
	allowPrivate                                         bool
	parentDeathFD                                        int
}

func parseServeFlags(args []string) (*serveFlags, error) {
	f := &serveFlags{}
	set := flag.NewFlagSet("devcontrol serve", flag.ContinueOnError)
	set.StringVar(&f.stateDir, "state-dir", "", "`directory` of everything that outlives a restart (required)")
	set.StringVar(&f.listen, "listen", "127.0.0.1:0", "IPv4 `address`:port of the control protocol, DERP and the REST API; port 0 is any free one")
	set.StringVar(&f.serverURL, "server-url", "", "`URL` that nodes join at (default http://LISTEN)")
	set.UintVar(&f.stunPort, "stun-listen", 0, "UDP `port` of STUN, on the listen address and on [::1]; 0 is any free one")
	set.TextVar(&f.prefixV4, "prefix-v4", netip.MustParsePrefix("100.64.0.0/10"), "`prefix` that IPv4 addresses come from")
	set.StringVar(&f.unixSocket, "unix-socket", "", "`path` of the socket that needs no API key (default STATE-DIR/devcontrol.sock)")
	set.StringVar(&f.debugListen, "debug-listen", "", "loopback `address`:port or unix:PATH of the fault switches (default off)")
	set.BoolVar(&f.allowPrivate, "allow-private", false, "allow --listen on a private address, such as a container bridge's")
	set.IntVar(&f.parentDeathFD, "parent-death-fd", 0, "exit when this file `descriptor` reaches its end")
	if err := parseFlags(set, args); err != nil {
		return nil, err
	}
	tailscaleRange := netip.MustParsePrefix("100.64.0.0/10")
	switch {
	case set.NArg() > 0:
		return nil, fmt.Errorf("cannot serve: %q is no flag", set.Arg(0))
	case f.stateDir == "":
		return nil, errors.New("cannot serve: name a --state-dir")
	case f.stunPort > 65535:
		return nil, fmt.Errorf("cannot serve: %d is no port", f.stunPort)
	case !tailscaleRange.Contains(f.prefixV4.Addr()) || f.prefixV4.Bits() < tailscaleRange.Bits() || f.prefixV4.Bits() > 30:
		return nil, fmt.Errorf("cannot serve: --prefix-v4 %s is not a part of %s with room for nodes", f.prefixV4, tailscaleRange)
	}
	if f.unixSocket == "" {
		f.unixSocket = filepath.Join(f.stateDir, "devcontrol.sock")
	}
	return f, nil
}

func serveCommand(args []string) error {
	flags, err := parseServeFlags(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if flags.parentDeathFD != 0 {
		parent := os.NewFile(uintptr(flags.parentDeathFD), "parent")
		go func() {
			parent.Read(make([]byte, 1)) // the parent writes nothing: this ends when it does
			stop()
		}()
	}
	return serve(ctx, flags, func(text string) { log.Print(text) })
}

// serve runs until the context ends, and then leaves at once: streams and DERP connections end with the process.
func serve(ctx context.Context, flags *serveFlags, announce func(string)) error {
	announce(banner)
	lock, err := lockStateDir(flags.stateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	listener, err := listenHTTP(flags.listen, flags.allowPrivate)
	if err != nil {
		return err
	}
	defer listener.Close()
	address := listener.Addr().(*net.TCPAddr).AddrPort()
	if flags.serverURL == "" {
		flags.serverURL = "http://" + address.String()
	}
	serverURL, err := url.Parse(flags.serverURL)
	if err != nil || serverURL.Hostname() == "" || (serverURL.Scheme != "http" && serverURL.Scheme != "https") {
		return fmt.Errorf("cannot serve: --server-url %q is no http(s) URL with a host", flags.serverURL)
	}
	v6, stunPort, err := listenSTUN(ctx, address.Addr(), uint16(flags.stunPort))
	if err != nil {
		return err
	}
	socket, err := listenSocket(flags.unixSocket)
	if err != nil {
		return err
	}
	defer socket.Close()
	server, err := newServer(ctx, Config{
		StateDir:  flags.stateDir,
		ServerURL: serverURL,
		PrefixV4:  flags.prefixV4,
		PrefixV6:  netip.MustParsePrefix("fd7a:115c:a1e0::/48"),
		DERPMap:   newDERPMap(serverURL, address.Addr(), v6, stunPort),
		VerifyURL: "http://" + address.String() + "/verify",
	})
	if err != nil {
		return err
	}
	failed := make(chan error, 3)
	start := func(listener net.Listener, handler http.Handler) {
		httpServer := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
		context.AfterFunc(ctx, func() { httpServer.Close() })
		go func() {
			if err := httpServer.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	start(listener, server.handler(ctx))
	start(socket, server.socketHandler())
	if flags.debugListen != "" {
		debug, err := listenDebug(flags.debugListen)
		if err != nil {
			return err
		}
		defer debug.Close()
		start(debug, server.debugHandler())
		announce("fault switches are open on " + debug.Addr().String())
	}
	announce(fmt.Sprintf("serving on http://%s, nodes join at %s, STUN on port %d, socket %s, state in %s", address, serverURL, stunPort, flags.unixSocket, flags.stateDir))
	select {
	case <-ctx.Done():
		announce("stopping")
		return server.close()
	case err := <-failed:
		return fmt.Errorf("cannot serve any longer: %w", err)
	}
}
