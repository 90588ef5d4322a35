package main

// Which answer a map stream gets to which change: the same ones that Headscale 0.29.2 sends (hscontrol/mapper and
// hscontrol/types/change), because the shape decides what a watcher on a node's tailscaled sees. A join or a delete
// replaces the whole set of peers; an update of one node is a delta; online and offline are patches.

import (
	"slices"
	"time"

	"tailscale.com/tailcfg"
)

type changeKind int

const (
	fullKind   changeKind = iota // everything: what a stream begins with
	policyKind                   // a node came or went, or the policy is new: who sees whom is counted again
	nodeKind                     // one node said something new about itself
	patchKind                    // one fact about one node
)

type change struct {
	kind  changeKind
	node  ID // the node that it is about, which is shown its own record; 0: none
	patch *tailcfg.PeerChange
}

func policyChanged(about ID) change { return change{kind: policyKind, node: about} }

func nodeChanged(id ID) change { return change{kind: nodeKind, node: id} }

func peerPatch(about ID, patch *tailcfg.PeerChange) change {
	return change{kind: patchKind, node: about, patch: patch}
}

// maxPending is how far a stream may fall behind before it gets everything anew instead.
const maxPending = 256

// broadcast queues the change for every open stream. With Server.mu held.
func (s *Server) broadcast(c change) {
	for _, streams := range s.streams {
		for stream := range streams {
			stream.queue(c)
		}
	}
}

// queue adds the change; of several recounts for everybody in a row only the first is kept, since all are the same.
func (st *stream) queue(c change) {
	if c == policyChanged(0) && slices.Contains(st.pending, c) {
		return
	}
	if len(st.pending) >= maxPending {
		st.pending = []change{{kind: fullKind}}
	}
	st.pending = append(st.pending, c)
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// answers empties the queue of the stream. With Server.mu held.
func (s *Server) answers(st *stream) []*tailcfg.MapResponse {
	pending := st.pending
	st.pending = nil
	node := s.state.Nodes[st.node]
	if node == nil { // deleted: nobody tells it
		return nil
	}
	var answers []*tailcfg.MapResponse
	for _, c := range pending {
		if answer := s.answer(st, node, c); answer != nil {
			st.remember(answer)
			answers = append(answers, answer)
		}
	}
	return answers
}

// answer is nil when the change is about a node that this one does not see: a link that goes up or down on the machine
// of a hundred nodes makes each of them say so, and Headscale tells every other one that nothing is new for it.
func (s *Server) answer(st *stream, self *Node, c change) *tailcfg.MapResponse {
	now := time.Now()
	answer := &tailcfg.MapResponse{ControlTime: &now}
	show := func(nodes []*Node) []*tailcfg.Node {
		shown := make([]*tailcfg.Node, 0, len(nodes))
		for _, node := range nodes {
			shown = append(shown, node.tailcfgNode(st.version, now))
		}
		return shown
	}
	switch c.kind {
	case fullKind:
		peers := s.peersOf(self)
		answer.Node = self.tailcfgNode(st.version, now)
		answer.Peers = show(peers)
		answer.PeersRemoved = st.missing(peers)
		answer.UserProfiles = s.profiles(self, peers)
		answer.PacketFilters = map[string][]tailcfg.FilterRule{"base": s.packetFilter(self)}
		answer.DERPMap = s.config.DERPMap
		answer.DNSConfig = &tailcfg.DNSConfig{}
		answer.Domain = s.config.ServerURL.Hostname()
		answer.Debug = &tailcfg.Debug{DisableLogTail: true}
		answer.CollectServices.Set(false)
	case policyKind:
		peers := s.peersOf(self)
		answer.DNSConfig = &tailcfg.DNSConfig{}
		answer.PacketFilters = map[string][]tailcfg.FilterRule{"base": s.packetFilter(self)}
		answer.PeersRemoved = st.missing(peers)
		if len(peers) > 0 {
			answer.PeersChanged = show(peers)
			answer.UserProfiles = s.profiles(self, peers)
		}
		if c.node == self.ID {
			answer.Node = self.tailcfgNode(st.version, now)
		}
	case nodeKind, patchKind:
		node := s.state.Nodes[c.node]
		if c.kind == patchKind {
			node = s.state.Nodes[ID(c.patch.NodeID)]
		}
		switch {
		case c.node == self.ID:
			answer.Node = self.tailcfgNode(st.version, now)
		case node == nil || !s.sees(self, node):
			return nil
		case c.kind == patchKind:
			answer.PeersChangedPatch = []*tailcfg.PeerChange{c.patch}
		default:
			answer.PeersChanged = show([]*Node{node})
			answer.UserProfiles = s.profiles(self, []*Node{node})
		}
	}
	return answer
}

// missing returns the peers that were sent and are none any more. A client takes an empty list for "no change", so they
// have to be named.
func (st *stream) missing(peers []*Node) []tailcfg.NodeID {
	var missing []tailcfg.NodeID
	for id := range st.sent {
		if !slices.ContainsFunc(peers, func(peer *Node) bool { return tailcfg.NodeID(peer.ID) == id }) {
			missing = append(missing, id)
		}
	}
	slices.Sort(missing)
	return missing
}

func (st *stream) remember(answer *tailcfg.MapResponse) {
	for _, peer := range slices.Concat(answer.Peers, answer.PeersChanged) {
		st.sent[peer.ID] = true
	}
	for _, id := range answer.PeersRemoved {
		delete(st.sent, id)
	}
}
