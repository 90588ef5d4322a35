package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

func TestDERPRelaysBetweenOurNodesOnly(t *testing.T) {
	ts := startServer(t)
	one, two := ts.machine("one"), ts.machine("two")
	ts.join(one, "tag:agent")
	ts.join(two, "tag:agent")
	connect := func(nodeKey key.NodePrivate) (*derphttp.Client, error) {
		client, err := derphttp.NewClient(nodeKey, ts.url+"/derp", logger.Discard, netmon.NewStatic())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		if err := client.Connect(t.Context()); err != nil {
			return nil, err
		}
		_, err = client.Recv() // the server's own word on whether it takes the client
		return client, err
	}
	sender, err := connect(one.nodeKey)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := connect(two.nodeKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := sender.Send(two.nodeKey.Public(), []byte("hello")); err != nil {
		t.Fatal(err)
	}
	for {
		message, err := receiver.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if packet, ok := message.(derp.ReceivedPacket); ok {
			equal(t, "packet", string(packet.Data), "hello")
			break
		}
	}
	if _, err := connect(key.NewNode()); err == nil {
		t.Error("a stranger may use the DERP server")
	}
}

func TestVerify(t *testing.T) {
	ts := startServer(t)
	one := ts.machine("one")
	ts.join(one, "tag:agent")
	for name, test := range map[string]struct {
		nodeKey key.NodePublic
		allow   bool
	}{"ours": {one.nodeKey.Public(), true}, "a stranger's": {key.NewNode().Public(), false}} {
		body := must(json.Marshal(tailcfg.DERPAdmitClientRequest{NodePublic: test.nodeKey}))
		response := must(http.Post(ts.url+"/verify", "application/json", bytes.NewReader(body)))
		var answer tailcfg.DERPAdmitClientResponse
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		equal(t, name, answer.Allow, test.allow)
	}
}

func TestDERPMap(t *testing.T) {
	for _, test := range []struct {
		url  string
		v6   netip.Addr
		host string
		port int
		ipv6 string
	}{
		{"http://127.0.0.1:8080", netip.IPv6Loopback(), "127.0.0.1", 8080, "::1"},
		{"https://control.example", netip.Addr{}, "control.example", 443, "none"},
		{"http://localhost", netip.Addr{}, "localhost", 80, "none"},
	} {
		node := newDERPMap(must(url.Parse(test.url)), netip.MustParseAddr("127.0.0.1"), test.v6, 3478).Regions[derpRegion].Nodes[0]
		equal(t, "host", node.HostName, test.host)
		equal(t, "port", node.DERPPort, test.port)
		equal(t, "IPv4", node.IPv4, "127.0.0.1")
		equal(t, "IPv6", node.IPv6, test.ipv6)
		equal(t, "STUN", node.STUNPort, 3478)
	}
}
