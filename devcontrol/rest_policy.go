package main

// The calls about the policy.

import (
	"net/http"
	"time"
)

func (s *Server) getPolicy(*http.Request) (any, error) {
	var stored *StoredPolicy
	s.view(func(state *State) { stored = state.Policy })
	if stored == nil {
		return nil, failed("loading ACL from database: acl policy not found")
	}
	return wirePolicy{stored.Data, optional(&stored.UpdatedAt)}, nil
}

func (s *Server) putPolicy(r *http.Request) (any, error) {
	var request struct{ Policy string }
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	policy, err := parsePolicy(request.Policy)
	if err != nil {
		return nil, failed("setting policy: " + err.Error())
	}
	stored := &StoredPolicy{request.Policy, time.Now()}
	err = s.change(func(state *State) error {
		state.Policy = stored
		// Headscale stores an empty policy and goes on enforcing the one before, until it restarts: then all is allowed.
		if request.Policy != "" {
			s.policy = policy
		}
		s.broadcast(policyChanged(0))
		return nil
	})
	return wirePolicy{stored.Data, optional(&stored.UpdatedAt)}, err
}

func (s *Server) checkPolicy(r *http.Request) (any, error) {
	var request struct{ Policy string }
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	if _, err := parsePolicy(request.Policy); err != nil {
		return nil, invalid(err.Error())
	}
	return struct{}{}, nil
}
