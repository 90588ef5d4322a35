package main

// The calls about nodes.

import (
	"fmt"
	"net/http"
	"time"
)

func (s *Server) listNodes(r *http.Request) (any, error) {
	name := r.URL.Query().Get("user")
	nodes := []*wireNode{}
	var err error
	s.view(func(state *State) {
		owner := state.userByName(name)
		if name != "" && owner == nil {
			err = failed("user not found")
			return
		}
		for _, node := range state.sortedNodes() {
			if name != "" && node.UserID != owner.ID {
				continue
			}
			shown := node.wire(state)
			if node.isTagged() {
				shown.User = &taggedDevices
			}
			nodes = append(nodes, shown)
		}
	})
	return map[string]any{"nodes": nodes}, err
}

func (s *Server) getNode(r *http.Request) (any, error) {
	id, err := pathID(r, "node_id")
	if err != nil {
		return nil, err
	}
	var shown *wireNode
	s.view(func(state *State) {
		if node := state.Nodes[id]; node != nil {
			shown = node.wire(state)
		}
	})
	if shown == nil {
		return nil, errUnknownNode
	}
	return map[string]any{"node": shown}, nil
}

func (s *Server) deleteNodeCall(r *http.Request) (any, error) {
	id, err := pathID(r, "node_id")
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.change(func(state *State) error {
		if !s.deleteNode(state, id) {
			return errUnknownNode
		}
		return nil
	})
}

// expireNode ends the node's key: now, at ?expiry=, or never with ?disableExpiry=true.
func (s *Server) expireNode(r *http.Request) (any, error) {
	query := r.URL.Query()
	expiry := new(time.Now())
	if text := query.Get("expiry"); text != "" {
		parsed, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return nil, invalid(fmt.Sprintf("parsing field %q: %v", "expiry", err))
		}
		expiry = &parsed
	}
	if query.Get("disableExpiry") == "true" {
		if query.Get("expiry") != "" {
			return nil, invalid("cannot set both disable_expiry and expiry")
		}
		expiry = nil
	}
	return s.changeNode(r, func(state *State, node *Node) error {
		s.setExpiry(node, expiry)
		return nil
	}, func(id ID) error { return failed(fmt.Sprintf("node no longer exists in NodeStore: %d", id)) })
}

func (s *Server) setNodeTags(r *http.Request) (any, error) {
	var request struct{ Tags []string }
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	if len(request.Tags) == 0 {
		return nil, invalid("cannot remove all tags from a node - tagged nodes must have at least one tag")
	}
	for _, tag := range request.Tags {
		if err := checkTag(tag); err != nil {
			return nil, failed(err.Error())
		}
	}
	return s.changeNode(r, func(state *State, node *Node) error {
		var unknown []string
		for _, tag := range request.Tags {
			if !s.policy.defines(tag) {
				unknown = append(unknown, tag)
			}
		}
		if len(unknown) > 0 {
			return invalid(fmt.Sprintf("requested tags %v are invalid or not permitted", unknown))
		}
		s.setTags(node, request.Tags)
		return nil
	}, func(ID) error { return errUnknownNode })
}

// changeNode changes the node that the path names and answers with it.
func (s *Server) changeNode(r *http.Request, act func(*State, *Node) error, absent func(ID) error) (any, error) {
	id, err := pathID(r, "node_id")
	if err != nil {
		return nil, err
	}
	var shown *wireNode
	err = s.change(func(state *State) error {
		node := state.Nodes[id]
		if node == nil {
			return absent(id)
		}
		if err := act(state, node); err != nil {
			return err
		}
		shown = node.wire(state)
		return nil
	})
	return map[string]any{"node": shown}, err
}
