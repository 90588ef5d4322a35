package main

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"tailscale.com/control/tsp"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

func tailcfgID(id string) (tailcfg.NodeID, error) {
	parsed, err := strconv.ParseInt(id, 10, 64)
	return tailcfg.NodeID(parsed), err
}

func hasPeer(answer *tailcfg.MapResponse, id string) *tailcfg.Node {
	for _, peer := range answer.PeersChanged {
		if string(peer.StableID) == id {
			return peer
		}
	}
	return nil
}

func isOnlinePatch(id string, online bool) func(*tailcfg.MapResponse) bool {
	return func(answer *tailcfg.MapResponse) bool {
		for _, patch := range answer.PeersChangedPatch {
			if patch.NodeID == must(tailcfgID(id)) && patch.Online != nil && *patch.Online == online {
				return true
			}
		}
		return false
	}
}

func TestTheFirstAnswerHasEverything(t *testing.T) {
	ts := startServer(t)
	_, one, _ := joinThree(ts)
	first := one.stream().first()
	equal(t, "id", string(first.Node.StableID), one.id)
	equal(t, "name", first.Node.Name, "one")
	equal(t, "online", *first.Node.Online, true)
	equal(t, "user", first.Node.User, tailcfg.UserID(taggedDevicesID))
	equal(t, "domain", first.Domain, "127.0.0.1")
	equal(t, "log tail", first.Debug.DisableLogTail, true)
	node := first.DERPMap.Regions[derpRegion].Nodes[0]
	equal(t, "DERP host", node.HostName, "127.0.0.1")
	equal(t, "DERP port", "http://127.0.0.1:"+strconv.Itoa(node.DERPPort), ts.url)
	equal(t, "DERP IPv6", node.IPv6, "::1")
	equal(t, "profiles", first.UserProfiles[0].LoginName, "tagged-devices")
}

// A join is a whole new set of peers without, then a delta with the node online, then the patch: what a watcher sees
// of it on a real Headscale (lab measurements) follows from these.
func TestAJoinIsTold(t *testing.T) {
	ts := startServer(t)
	relay, one, two := joinThree(ts)
	stream := relay.stream()
	stream.first()
	three := ts.machine("three")
	ts.join(three, "tag:agent", "tag:a-3")
	whole := stream.next("the new node", func(answer *tailcfg.MapResponse) bool { return hasPeer(answer, three.id) != nil })
	equalList(t, "all peers", ids(whole.PeersChanged), []string{one.id, two.id, three.id})
	equal(t, "online before its stream", *hasPeer(whole, three.id).Online, false)
	if whole.PacketFilters == nil || whole.DNSConfig == nil {
		t.Error("without a packet filter a client takes it for a delta")
	}
	three.stream().first()
	delta := stream.next("the node online", func(answer *tailcfg.MapResponse) bool {
		return hasPeer(answer, three.id) != nil && *hasPeer(answer, three.id).Online
	})
	equalList(t, "the delta", ids(delta.PeersChanged), []string{three.id})
	if delta.PacketFilters != nil {
		t.Error("with a packet filter a client takes it for a new set")
	}
	stream.next("the patch", isOnlinePatch(three.id, true))
}

func TestANodeIsOfflineAfterTheGrace(t *testing.T) {
	ts := startServer(t)
	relay, one, _ := joinThree(ts)
	stream := relay.stream()
	agent := one.stream()
	agent.first()
	stream.next("online", isOnlinePatch(one.id, true))
	equal(t, "online", ts.node(one.id)["online"], any(true))
	lastSeen := ts.node(one.id)["lastSeen"]
	agent.close()
	stream.next("offline", isOnlinePatch(one.id, false))
	equal(t, "online", ts.node(one.id)["online"], any(false))
	if ts.node(one.id)["lastSeen"] == lastSeen {
		t.Error("lastSeen did not move at the disconnect")
	}
}

func TestANodeThatComesBackInTimeStaysOnline(t *testing.T) {
	ts := startServer(t)
	ts.offlineGrace = time.Hour
	_, one, _ := joinThree(ts)
	for range 3 {
		stream := one.stream()
		stream.first()
		stream.close()
	}
	ts.eventually("no stream is open", func() (none bool) {
		ts.view(func(*State) { none = len(ts.streams[must(parseID(one.id))]) == 0 })
		return none
	})
	equal(t, "online", ts.node(one.id)["online"], any(true))
}

func TestANodeIsOnlineWhileOneOfItsStreamsIsOpen(t *testing.T) {
	ts := startServer(t)
	_, one, _ := joinThree(ts)
	sessions := func(count int) func() bool {
		return func() (reached bool) {
			ts.view(func(state *State) { reached = state.Nodes[must(parseID(one.id))].sessions == count })
			return reached
		}
	}
	first, second := one.stream(), one.stream()
	first.first()
	second.first()
	ts.eventually("two sessions", sessions(2))
	first.close()
	ts.eventually("one session", sessions(1))
	equal(t, "online", ts.node(one.id)["online"], any(true))
	second.close()
	ts.eventually("no session", sessions(0))
	equal(t, "online", ts.node(one.id)["online"], any(false))
}

func TestADeletedNodeVanishesAndItsStreamGoesOn(t *testing.T) {
	ts := startServer(t)
	ts.keepAlive = 20 * time.Millisecond
	relay, one, two := joinThree(ts)
	stream := relay.stream()
	stream.first()
	zombie := one.stream()
	isKeepAlive := func(answer *tailcfg.MapResponse) bool { return answer.KeepAlive }
	zombie.next("a keep-alive, after all else", isKeepAlive)
	ts.api("DELETE", "/api/v1/node/"+one.id, "")
	gone := stream.next("the removal", func(answer *tailcfg.MapResponse) bool { return len(answer.PeersRemoved) > 0 })
	equalList(t, "removed", gone.PeersRemoved, []tailcfg.NodeID{must(tailcfgID(one.id))})
	equalList(t, "the rest", ids(gone.PeersChanged), []string{two.id})

	for range 3 {
		zombie.next("a keep-alive", func(answer *tailcfg.MapResponse) bool {
			if len(answer.PeersRemoved)+len(answer.PeersChanged) > 0 || answer.Node != nil {
				t.Error("the deleted node was told something")
			}
			return isKeepAlive(answer)
		})
	}
	ts.refused("GET", "/api/v1/node/"+one.id, "", 404, "node not found")
	ts.refused("DELETE", "/api/v1/node/"+one.id, "", 404, "node not found")
	if err := one.client.SendMapUpdate(t.Context(), tsp.SendMapUpdateOpts{NodeKey: one.nodeKey}); err == nil {
		t.Error("a deleted node could update itself")
	}
	zombie.close()
}

func TestKeepAlive(t *testing.T) {
	ts := startServer(t)
	ts.keepAlive = 5 * time.Millisecond
	_, one, _ := joinThree(ts)
	one.stream().next("a keep-alive", func(answer *tailcfg.MapResponse) bool { return answer.KeepAlive })
}

func TestAnUpdateReachesThePeers(t *testing.T) {
	ts := startServer(t)
	relay, one, _ := joinThree(ts)
	one.stream().first()
	stream := relay.stream()
	stream.first()
	before := ts.node(one.id)
	disco := key.NewDisco().Public()
	err := one.client.SendMapUpdate(t.Context(), tsp.SendMapUpdateOpts{
		NodeKey: one.nodeKey, DiscoKey: disco,
		Hostinfo: &tailcfg.Hostinfo{Hostname: "renamed", NetInfo: &tailcfg.NetInfo{PreferredDERP: derpRegion}},
	})
	if err != nil {
		t.Fatal(err)
	}
	changed := stream.next("the disco key", func(answer *tailcfg.MapResponse) bool {
		peer := hasPeer(answer, one.id)
		return peer != nil && peer.DiscoKey == disco
	})
	peer := hasPeer(changed, one.id)
	equal(t, "home DERP", peer.HomeDERP, derpRegion)
	equal(t, "name", peer.Name, "renamed")
	after := ts.node(one.id)
	equal(t, "givenName follows the hostname", after["givenName"], any("renamed"))
	if after["lastSeen"] == before["lastSeen"] {
		t.Error("lastSeen did not move, as it does in Headscale with every map request")
	}
	// A client sends its NetInfo only when it changes.
	if err := one.client.SendMapUpdate(t.Context(), tsp.SendMapUpdateOpts{NodeKey: one.nodeKey, Hostinfo: &tailcfg.Hostinfo{Hostname: "renamed"}}); err != nil {
		t.Fatal(err)
	}
	equal(t, "home DERP is kept", hasPeer(stream.next("the update", func(answer *tailcfg.MapResponse) bool {
		return hasPeer(answer, one.id) != nil
	}), one.id).HomeDERP, derpRegion)
}

// On one machine with a hundred agents each of them has news whenever one of its links goes up or down.
func TestAnUpdateIsNotToldToThoseWhoDoNotSeeTheNode(t *testing.T) {
	ts := startServer(t)
	relay, one, two := joinThree(ts)
	stream := two.stream()
	stream.first()
	one.stream().first()
	update := tsp.SendMapUpdateOpts{NodeKey: one.nodeKey, Hostinfo: &tailcfg.Hostinfo{Hostname: "renamed"}}
	if err := one.client.SendMapUpdate(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	relay.stream().first()
	stream.next("what it does see", func(answer *tailcfg.MapResponse) bool {
		if answer.Node == nil && answer.PeersChanged == nil && answer.PeersChangedPatch == nil {
			t.Errorf("an answer without news: %+v", answer)
		}
		return isOnlinePatch(relay.id, true)(answer)
	})
}

func TestAStreamThatFallsBehindGetsEverythingAnew(t *testing.T) {
	ts := startServer(t)
	_, one, two := joinThree(ts)
	st := &stream{node: must(parseID(one.id)), sent: map[tailcfg.NodeID]bool{9999: true}, wake: make(chan struct{}, 1)}
	for range 10 * maxPending {
		st.queue(nodeChanged(must(parseID(two.id))))
	}
	if len(st.pending) > maxPending {
		t.Errorf("%d changes wait", len(st.pending))
	}
	ts.mu.Lock()
	first := ts.answers(st)[0]
	ts.mu.Unlock()
	equal(t, "starts with itself", string(first.Node.StableID), one.id)
	equalList(t, "what it knew and is none", first.PeersRemoved, []tailcfg.NodeID{9999})
}

func TestStrangersGetNoNetmap(t *testing.T) {
	ts := startServer(t)
	_, one, _ := joinThree(ts)
	stranger := ts.machine("stranger")
	stranger.nodeKey = one.nodeKey // node keys are public: every peer knows them
	for _, m := range []*machine{stranger, ts.machine("unknown")} {
		if _, err := m.client.Map(t.Context(), tsp.MapOpts{NodeKey: m.nodeKey, Stream: true}); err == nil {
			t.Errorf("%s got a netmap", m.name)
		}
	}
}

func TestKeyNeedsACapabilityVersion(t *testing.T) {
	ts := startServer(t)
	response := must(http.Get(ts.url + "/key"))
	response.Body.Close()
	equal(t, "status", response.StatusCode, 400)
}

func parseID(text string) (ID, error) {
	var id ID
	err := id.UnmarshalText([]byte(text))
	return id, err
}
