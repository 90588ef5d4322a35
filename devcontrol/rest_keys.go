package main

// The calls about pre-auth keys and API keys, and the check of an API key.

import (
	"net/http"
	"strings"
	"time"
)

func (s *Server) listAuthKeys(*http.Request) (any, error) {
	keys := []*wireAuthKey{}
	s.view(func(state *State) {
		for _, authKey := range sortedByID(state.AuthKeys) {
			keys = append(keys, authKey.wire(state))
		}
	})
	return map[string]any{"preAuthKeys": keys}, nil
}

func (s *Server) createAuthKey(r *http.Request) (any, error) {
	var request struct {
		User                ID
		Reusable, Ephemeral bool
		Expiration          *timestamp
		ACLTags             []string
	}
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	for _, tag := range request.ACLTags {
		if err := checkTag(tag); err != nil {
			return nil, invalid(err.Error())
		}
	}
	if request.Ephemeral {
		return nil, invalid("devcontrol has no ephemeral nodes: create a key that is not ephemeral")
	}
	var created *wireAuthKey
	err := s.change(func(state *State) error {
		if request.User != 0 && state.Users[request.User] == nil {
			return failed("user not found")
		}
		if request.User == 0 && len(request.ACLTags) == 0 {
			return failed("auth-key must be either tagged or owned by user")
		}
		text, prefix, hash := newKey(authKeyKind)
		state.LastID.AuthKey++
		authKey := &AuthKey{
			ID: state.LastID.AuthKey, Prefix: prefix, Hash: hash, UserID: request.User, Tags: sortedTags(request.ACLTags),
			Reusable: request.Reusable, Expiration: request.Expiration.orZero(), CreatedAt: time.Now(),
		}
		state.AuthKeys[authKey.ID] = authKey
		created = authKey.wire(state)
		created.Key = text
		return nil
	})
	return map[string]any{"preAuthKey": created}, err
}

// expireAuthKey succeeds for keys that do not exist, as Headscale does.
func (s *Server) expireAuthKey(r *http.Request) (any, error) {
	var request struct{ ID ID }
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	return struct{}{}, s.change(func(state *State) error {
		if authKey := state.AuthKeys[request.ID]; authKey != nil {
			authKey.Expiration = time.Now()
		}
		return nil
	})
}

// deleteAuthKey succeeds for keys that do not exist, as Headscale does.
func (s *Server) deleteAuthKey(r *http.Request) (any, error) {
	id, err := queryID(r, "id")
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.change(func(state *State) error {
		delete(state.AuthKeys, id) // its node shows it until the next restart, and then none
		return nil
	})
}

func (s *Server) listAPIKeys(*http.Request) (any, error) {
	keys := []*wireAPIKey{}
	s.view(func(state *State) {
		for _, apiKey := range sortedByID(state.APIKeys) {
			keys = append(keys, apiKey.wire())
		}
	})
	return map[string]any{"apiKeys": keys}, nil
}

func (s *Server) createAPIKey(r *http.Request) (any, error) {
	var request struct{ Expiration *timestamp }
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	text, prefix, hash := newKey(apiKeyKind)
	err := s.change(func(state *State) error {
		state.LastID.APIKey++
		state.APIKeys[state.LastID.APIKey] = &APIKey{
			ID: state.LastID.APIKey, Prefix: prefix, Hash: hash, Expiration: request.Expiration.orZero(), CreatedAt: time.Now(),
		}
		return nil
	})
	return map[string]any{"apiKey": text}, err
}

func (s *Server) expireAPIKey(r *http.Request) (any, error) {
	var request struct {
		ID     ID
		Prefix string
	}
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	return struct{}{}, s.change(func(state *State) error {
		apiKey, err := state.apiKey(request.ID, request.Prefix)
		if err == nil {
			apiKey.Expiration = time.Now()
		}
		return err
	})
}

func (s *Server) deleteAPIKey(r *http.Request) (any, error) {
	id, err := queryID(r, "id")
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.change(func(state *State) error {
		apiKey, err := state.apiKey(id, r.PathValue("prefix"))
		if err == nil {
			delete(state.APIKeys, apiKey.ID)
		}
		return err
	})
}

// apiKey finds a key by its id or by its prefix, bare or as lists show it.
func (state *State) apiKey(id ID, prefix string) (*APIKey, error) {
	switch {
	case id != 0 && prefix != "":
		return nil, invalid("provide either id or prefix, not both")
	case id == 0 && prefix == "":
		return nil, invalid("must provide id or prefix")
	case id != 0 && state.APIKeys[id] != nil:
		return state.APIKeys[id], nil
	}
	if rest, found := strings.CutPrefix(prefix, apiKeyKind); found && len(rest) >= prefixLength {
		prefix = rest[:prefixLength]
	}
	for _, apiKey := range state.APIKeys {
		if prefix != "" && apiKey.Prefix == prefix {
			return apiKey, nil
		}
	}
	return nil, failed("record not found")
}

// authenticated lets only holders of an API key through; others get a plain 401, as from Headscale.
func (s *Server) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !isBearer || !s.isValidAPIKey(text) {
			writeUnauthorized(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) isValidAPIKey(text string) (valid bool) {
	prefix, secret, ok := cutKey(apiKeyKind, text)
	if !ok {
		return false
	}
	s.view(func(state *State) {
		for _, apiKey := range state.APIKeys {
			if apiKey.Prefix == prefix {
				valid = isSecretOf(apiKey.Hash, secret) && time.Now().Before(apiKey.Expiration)
			}
		}
	})
	return valid
}

func writeUnauthorized(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusUnauthorized)
	w.Write([]byte("Unauthorized"))
}
