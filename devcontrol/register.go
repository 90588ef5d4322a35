package main

// How a machine becomes a node: registration with a pre-auth key, again with another one, and logout
// (hscontrol/auth.go and hscontrol/state/state.go, v0.29.2).

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"slices"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

func (s *Server) handleRegister(w http.ResponseWriter, r *http.Request, machine key.MachinePublic) {
	var request tailcfg.RegisterRequest
	response := &tailcfg.RegisterResponse{}
	err := json.NewDecoder(r.Body).Decode(&request)
	if err == nil {
		if isTooOld(w, request.Version) {
			return
		}
		if request.Followup != "" { // it waits for a login in the browser, which nobody can do here
			<-r.Context().Done()
			return
		}
		err = s.change(func(state *State) (err error) {
			response, err = s.register(state, &request, machine)
			return err
		})
	}
	if err != nil {
		response = &tailcfg.RegisterResponse{Error: err.Error()}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(response)
}

func (s *Server) register(state *State, request *tailcfg.RegisterRequest, machine key.MachinePublic) (*tailcfg.RegisterResponse, error) {
	now := time.Now()
	known := state.nodeByKey(request.NodeKey)
	hasKey := request.Auth != nil && request.Auth.AuthKey != ""
	isLogout := !request.Expiry.IsZero() && request.Expiry.Before(now)
	if known != nil && (isLogout || !hasKey) {
		if known.MachineKey != machine {
			return nil, errors.New("node exists with a different machine key")
		}
		switch {
		case known.isExpired(now):
			return &tailcfg.RegisterResponse{NodeKeyExpired: true}, nil
		case isLogout:
			s.setExpiry(known, &now)
		case request.Expiry.After(now):
			return nil, errors.New("extending key is not allowed")
		}
		return state.registered(known), nil
	}
	if !hasKey {
		return &tailcfg.RegisterResponse{AuthURL: s.config.ServerURL.JoinPath("register", randomText(24)).String()}, nil
	}
	node, err := s.registerWithKey(state, request, machine, now)
	if err != nil {
		return nil, err
	}
	return state.registered(node), nil
}

func (s *Server) registerWithKey(state *State, request *tailcfg.RegisterRequest, machine key.MachinePublic, now time.Time) (*Node, error) {
	authKey, err := state.findAuthKey(request.Auth.AuthKey)
	if err != nil {
		return nil, err
	}
	node, err := state.nodeOfMachine(machine, authKey)
	if err != nil {
		return nil, err
	}
	if other := state.nodeByKey(request.NodeKey); other != nil && other.MachineKey != machine {
		return nil, errors.New("node key already in use by another machine")
	}
	becomesTagged := node != nil && len(authKey.Tags) > 0 && !node.isTagged()
	// A machine that is known under the same node key needs no valid key: containers run `up` with a spent one at every
	// start.
	if node == nil || node.NodeKey != request.NodeKey || node.isExpired(now) || becomesTagged {
		if err := authKey.check(now); err != nil {
			return nil, err
		}
	}
	hostinfo := request.Hostinfo
	if hostinfo == nil {
		hostinfo = &tailcfg.Hostinfo{}
	}
	if node == nil {
		if node, err = s.newNode(state, authKey, hostinfo, now); err != nil {
			return nil, err
		}
		node.MachineKey, node.NodeKey = machine, request.NodeKey
		if !node.isTagged() && !request.Expiry.IsZero() {
			node.Expiry = new(request.Expiry)
		}
		s.broadcast(policyChanged(0))
	} else {
		node.NodeKey = request.NodeKey
		if becomesTagged { // otherwise the tags stay those of the first registration, whatever the key says
			node.Tags, node.UserID, node.Expiry = authKey.Tags, 0, nil
		}
		if !node.isTagged() {
			node.Expiry = nil
			if !request.Expiry.IsZero() {
				node.Expiry = new(request.Expiry)
			}
		}
		node.keepNetInfo(hostinfo)
		node.Hostname, node.Hostinfo = hostinfo.Hostname, hostinfo
		if becomesTagged {
			s.broadcast(policyChanged(0))
		} else {
			s.broadcast(peerPatch(node.ID, node.keyPatch()))
		}
	}
	log.Printf("node %s (%s) registered with pre-auth key %s, tags %v", node.ID, node.GivenName, authKey.ID, node.Tags)
	authKey.Used = authKey.Used || !authKey.Reusable
	node.AuthKeyID, node.authKey, node.LastSeen = authKey.ID, new(*authKey), now
	return node, nil
}

func (s *Server) newNode(state *State, authKey *AuthKey, hostinfo *tailcfg.Hostinfo, now time.Time) (*Node, error) {
	if len(hostinfo.RequestTags) > 0 {
		return nil, fmt.Errorf("requested tags %v are invalid or not permitted", hostinfo.RequestTags)
	}
	v4, v6, err := s.addresses.next(state.isTaken)
	if err != nil {
		return nil, err
	}
	state.LastID.Node++
	node := &Node{
		ID:        state.LastID.Node,
		Hostname:  hostinfo.Hostname,
		Hostinfo:  hostinfo,
		Tags:      slices.Clone(authKey.Tags),
		IPv4:      v4,
		IPv6:      v6,
		CreatedAt: now,
	}
	if !node.isTagged() {
		node.UserID = authKey.UserID
	}
	node.GivenName = state.uniqueName(node.ID, node.Hostname)
	state.Nodes[node.ID] = node
	return node, nil
}

func (state *State) nodeByKey(nodeKey key.NodePublic) *Node {
	for _, node := range state.Nodes {
		if node.NodeKey == nodeKey {
			return node
		}
	}
	return nil
}

// nodeOfMachine returns the node that the machine already is under the owner of the key, nil when it is none.
func (state *State) nodeOfMachine(machine key.MachinePublic, authKey *AuthKey) (*Node, error) {
	var tagged *Node
	var owned []*Node
	for _, node := range state.sortedNodes() {
		switch {
		case node.MachineKey != machine:
		case node.isTagged():
			tagged = node
		case len(authKey.Tags) > 0 || node.UserID == authKey.UserID:
			owned = append(owned, node)
		}
	}
	byUser := len(authKey.Tags) == 0
	switch {
	case tagged != nil && (len(owned) == 0 || !byUser):
		return tagged, nil
	case len(owned) == 1 || (len(owned) > 1 && byUser):
		return owned[0], nil
	case len(owned) > 1:
		return nil, errors.New("machine key maps to ambiguous node ownership")
	}
	return nil, nil
}

// keepNetInfo carries over what a client sends only when it changes.
func (node *Node) keepNetInfo(hostinfo *tailcfg.Hostinfo) {
	if hostinfo.NetInfo == nil && node.Hostinfo != nil {
		hostinfo.NetInfo = node.Hostinfo.NetInfo
	}
}

// keyPatch is what peers need to know of a node that registered again.
func (node *Node) keyPatch() *tailcfg.PeerChange {
	expiry := time.Time{} // the zero time lifts an expiry that the peers know of
	if node.Expiry != nil {
		expiry = *node.Expiry
	}
	return &tailcfg.PeerChange{
		NodeID:    tailcfg.NodeID(node.ID),
		Key:       new(node.NodeKey),
		DiscoKey:  new(node.DiscoKey),
		KeyExpiry: &expiry,
		Endpoints: node.Endpoints,
	}
}

func (state *State) registered(node *Node) *tailcfg.RegisterResponse {
	profile := state.profile(node)
	return &tailcfg.RegisterResponse{
		MachineAuthorized: true,
		NodeKeyExpired:    node.isExpired(time.Now()),
		User:              tailcfg.User{ID: profile.ID, DisplayName: profile.DisplayName, ProfilePicURL: profile.ProfilePicURL},
		Login:             tailcfg.Login{ID: tailcfg.LoginID(profile.ID), LoginName: profile.LoginName, DisplayName: profile.DisplayName, ProfilePicURL: profile.ProfilePicURL},
	}
}
