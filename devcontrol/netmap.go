package main

// What one node sees of the tailnet: its peers, itself and its packet filter. With Server.mu held.

import (
	"net/netip"
	"time"

	"tailscale.com/tailcfg"
)

// peersOf returns the nodes that the node may reach or be reached by on any port, in the order of their ids.
func (s *Server) peersOf(viewer *Node) []*Node {
	var peers []*Node
	for _, node := range s.state.sortedNodes() {
		if s.sees(viewer, node) {
			peers = append(peers, node)
		}
	}
	return peers
}

func (s *Server) sees(viewer, node *Node) bool {
	return viewer != node && (s.policy.allows(viewer, node) || s.policy.allows(node, viewer))
}

// packetFilter returns what may come in at the node. Empty is not nil: nil would leave the node's old filter in place.
func (s *Server) packetFilter(node *Node) []tailcfg.FilterRule {
	if s.policy.AllowAll {
		return tailcfg.FilterAllowAll
	}
	filter := []tailcfg.FilterRule{}
	for _, rule := range s.policy.Rules {
		if !node.hasAnyTag(rule.Dst) {
			continue
		}
		compiled := tailcfg.FilterRule{IPProto: rule.Protocols}
		for _, source := range s.state.sortedNodes() {
			if source.hasAnyTag(rule.Src) {
				for _, ip := range source.addresses() {
					compiled.SrcIPs = append(compiled.SrcIPs, ip.String())
				}
			}
		}
		for _, ip := range node.addresses() {
			compiled.DstPorts = append(compiled.DstPorts, tailcfg.NetPortRange{IP: ip.String(), Ports: rule.Ports})
		}
		if len(compiled.SrcIPs) > 0 {
			filter = append(filter, compiled)
		}
	}
	return filter
}

// tailcfgNode is the node as the control protocol shows it to a client of that capability version.
func (node *Node) tailcfgNode(version tailcfg.CapabilityVersion, now time.Time) *tailcfg.Node {
	prefixes := make([]netip.Prefix, 0, 2)
	for _, ip := range node.addresses() {
		prefixes = append(prefixes, netip.PrefixFrom(ip, ip.BitLen()))
	}
	expired := node.isExpired(now)
	shown := &tailcfg.Node{
		ID:                tailcfg.NodeID(node.ID),
		StableID:          tailcfg.StableNodeID(node.ID.String()),
		Name:              node.GivenName,
		Cap:               version,
		User:              node.tailcfgUserID(),
		Key:               node.NodeKey,
		Machine:           node.MachineKey,
		DiscoKey:          node.DiscoKey,
		Addresses:         prefixes,
		AllowedIPs:        prefixes,
		Endpoints:         node.Endpoints,
		Hostinfo:          node.Hostinfo.View(),
		Created:           node.CreatedAt,
		Tags:              node.Tags,
		Online:            new(node.online),
		MachineAuthorized: !expired,
		Expired:           expired,
	}
	if node.Hostinfo != nil && node.Hostinfo.NetInfo != nil {
		shown.HomeDERP = node.Hostinfo.NetInfo.PreferredDERP
	}
	if node.Expiry != nil {
		shown.KeyExpiry = node.Expiry.UTC()
	}
	if !node.online { // a LastSeen on a node that is online makes clients think that it is not
		shown.LastSeen = new(node.LastSeen)
	}
	return shown
}

func (node *Node) tailcfgUserID() tailcfg.UserID {
	if node.isTagged() {
		return taggedDevicesID
	}
	return tailcfg.UserID(node.UserID)
}

// profile is the owner of the node as clients show it.
func (state *State) profile(node *Node) tailcfg.UserProfile {
	profile := tailcfg.UserProfile{ID: taggedDevicesID, LoginName: "tagged-devices", DisplayName: "Tagged Devices"}
	if user := state.Users[node.UserID]; user != nil && !node.isTagged() {
		profile = tailcfg.UserProfile{ID: tailcfg.UserID(user.ID), LoginName: user.Name, DisplayName: user.DisplayName, ProfilePicURL: user.ProfilePicURL}
		if user.DisplayName == "" {
			profile.DisplayName = user.Name
		}
	}
	return profile
}

func (s *Server) profiles(self *Node, peers []*Node) []tailcfg.UserProfile {
	profiles := []tailcfg.UserProfile{s.state.profile(self)}
	seen := map[tailcfg.UserID]bool{profiles[0].ID: true}
	for _, peer := range peers {
		if profile := s.state.profile(peer); !seen[profile.ID] {
			seen[profile.ID] = true
			profiles = append(profiles, profile)
		}
	}
	return profiles
}
