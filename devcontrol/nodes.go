package main

// What happens to a node: its name, online and offline, expiry, tags, deletion. All are called with Server.mu held.

import (
	"context"
	"log"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/util/dnsname"
)

// taggedDevicesID is the user that Headscale shows as the owner of every tagged node.
const taggedDevicesID = 2147455555

func (node *Node) isTagged() bool { return len(node.Tags) > 0 }

func (node *Node) isExpired(now time.Time) bool { return node.Expiry != nil && node.Expiry.Before(now) }

func (node *Node) hasAnyTag(tags []string) bool {
	return slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(node.Tags, tag) })
}

func (node *Node) addresses() []netip.Addr { return []netip.Addr{node.IPv4, node.IPv6} }

// sortedNodes returns all nodes in the order of their ids.
func (state *State) sortedNodes() []*Node {
	return sortedByID(state.Nodes)
}

func sortedByID[T any](all map[ID]T) []T {
	sorted := make([]T, 0, len(all))
	for _, id := range slices.Sorted(maps.Keys(all)) {
		sorted = append(sorted, all[id])
	}
	return sorted
}

func (state *State) isTaken(ip netip.Addr) bool {
	for _, node := range state.Nodes {
		if node.IPv4 == ip || node.IPv6 == ip {
			return true
		}
	}
	return false
}

// uniqueName turns a hostname into a DNS label that no other node has: base, base-1, base-2, ...
func (state *State) uniqueName(self ID, hostname string) string {
	base := dnsname.SanitizeHostname(hostname)
	if base == "" {
		base = "node"
	}
	taken := map[string]bool{}
	for _, node := range state.Nodes {
		if node.ID != self {
			taken[node.GivenName] = true
		}
	}
	name := base
	for i := 1; taken[name]; i++ {
		name = base + "-" + strconv.Itoa(i)
	}
	return name
}

// isNamedAfter says whether a given name was derived from the hostname, and so follows it.
func isNamedAfter(givenName, hostname string) bool {
	suffix, found := strings.CutPrefix(givenName, dnsname.SanitizeHostname(hostname))
	if !found || suffix == "" {
		return found
	}
	_, err := strconv.Atoi(strings.TrimPrefix(suffix, "-"))
	return err == nil && suffix[0] == '-'
}

// connect counts a new map stream of the node.
func (s *Server) connect(node *Node) {
	if !node.online {
		log.Printf("node %s (%s) is online", node.ID, node.GivenName)
	}
	node.sessions++
	node.online = true
}

// disconnect gives back what connect counted. The node is offline when its last stream is gone.
func (s *Server) disconnect(state *State, id ID) {
	node := state.Nodes[id]
	if node == nil { // deleted while it was connected
		return
	}
	if node.sessions--; node.sessions > 0 {
		return
	}
	node.online, node.LastSeen = false, time.Now()
	log.Printf("node %s (%s) is offline", node.ID, node.GivenName)
	s.broadcast(peerPatch(0, &tailcfg.PeerChange{NodeID: tailcfg.NodeID(id), Online: new(false)}))
}

// deleteNode takes the node out of everybody's netmap. Its own open streams are not told and go on as they are, with
// keep-alives only, as in Headscale (juanfont/headscale#3410).
func (s *Server) deleteNode(state *State, id ID) bool {
	node := state.Nodes[id]
	if node == nil {
		return false
	}
	log.Printf("node %s (%s) is deleted", node.ID, node.GivenName)
	delete(state.Nodes, id)
	s.broadcast(policyChanged(0))
	return true
}

func (s *Server) setExpiry(node *Node, expiry *time.Time) {
	node.Expiry = expiry
	s.broadcast(nodeChanged(node.ID))
}

// setTags makes a node tagged for good; its user no longer owns it.
func (s *Server) setTags(node *Node, tags []string) {
	node.Tags, node.UserID = sortedTags(tags), 0
	s.broadcast(policyChanged(node.ID))
}

// watchExpiry tells the peers of nodes whose key expires while everybody is connected.
func (s *Server) watchExpiry(ctx context.Context) {
	ticker := time.NewTicker(expiryCheck)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			s.view(func(state *State) {
				for _, node := range state.sortedNodes() {
					if node.isExpired(now) && !node.isExpired(last) {
						s.broadcast(peerPatch(node.ID, &tailcfg.PeerChange{NodeID: tailcfg.NodeID(node.ID), KeyExpiry: node.Expiry}))
					}
				}
			})
			last = now
		}
	}
}
