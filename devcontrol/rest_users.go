package main

// The calls about users. elizacloud's nodes are tagged and have none, but Headscale's API has them.

import (
	"maps"
	"net/http"
	"time"
)

func (s *Server) listUsers(r *http.Request) (any, error) {
	id, err := queryID(r, "id")
	if err != nil {
		return nil, err
	}
	query := r.URL.Query()
	users := []*wireUser{}
	s.view(func(state *State) {
		for _, user := range sortedByID(state.Users) {
			var wanted bool
			switch { // the first field that is there decides
			case query.Get("name") != "":
				wanted = user.Name == query.Get("name")
			case query.Get("email") != "":
				wanted = user.Email == query.Get("email")
			default:
				wanted = id == 0 || user.ID == id
			}
			if wanted {
				users = append(users, user.wire())
			}
		}
	})
	return map[string]any{"users": users}, nil
}

func (s *Server) createUser(r *http.Request) (any, error) {
	var request struct{ Name, DisplayName, Email, PictureURL string }
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	var created *wireUser
	err := s.change(func(state *State) error {
		if state.userByName(request.Name) != nil {
			return internal("creating user: creating user: constraint failed: UNIQUE constraint failed: users.name (2067)")
		}
		state.LastID.User++
		user := &User{
			ID: state.LastID.User, Name: request.Name, DisplayName: request.DisplayName, Email: request.Email,
			ProfilePicURL: request.PictureURL, CreatedAt: time.Now(),
		}
		state.Users[user.ID] = user
		created = user.wire()
		s.broadcast(policyChanged(0))
		return nil
	})
	return map[string]any{"user": created}, err
}

func (s *Server) deleteUser(r *http.Request) (any, error) {
	id, err := pathID(r, "id")
	if err != nil {
		return nil, err
	}
	return struct{}{}, s.change(func(state *State) error {
		if state.Users[id] == nil {
			return failed("user not found")
		}
		for _, node := range state.Nodes {
			if node.UserID == id {
				return failed("user not empty: node(s) found")
			}
		}
		maps.DeleteFunc(state.AuthKeys, func(_ ID, authKey *AuthKey) bool { return authKey.UserID == id })
		delete(state.Users, id)
		s.broadcast(policyChanged(0))
		return nil
	})
}

func (state *State) userByName(name string) *User {
	for _, user := range state.Users {
		if user.Name == name {
			return user
		}
	}
	return nil
}
