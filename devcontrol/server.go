package main

// The server: one lock around the state, and what changes in it told to the map streams and to the disk.

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/logger"
)

// Headscale's own numbers (hscontrol/poll.go, v0.29.2).
const (
	keepAliveInterval = 50 * time.Second
	offlineGrace      = 10 * time.Second
	expiryCheck       = 5 * time.Second
)

type Config struct {
	StateDir  string
	ServerURL *url.URL // where nodes reach us; the DERP map points at its host and port
	PrefixV4  netip.Prefix
	PrefixV6  netip.Prefix
	DERPMap   *tailcfg.DERPMap
	VerifyURL string // our own /verify, which the DERP server asks before it serves a client; empty: it serves anyone
}

type Server struct {
	config Config
	faults *faults
	derp   *derpserver.Server
	saver  *saver

	stopped      <-chan struct{}
	keepAlive    time.Duration
	offlineGrace time.Duration

	mu        sync.Mutex
	state     *State
	revision  uint64 // of the state in memory
	addresses *addresses
	policy    *Policy // what is enforced
	streams   map[ID]map[*stream]bool
}

// newServer loads the state. Its goroutines end with the context.
func newServer(ctx context.Context, config Config) (*Server, error) {
	path := filepath.Join(config.StateDir, "state.json")
	state, err := loadState(path)
	if err != nil {
		return nil, err
	}
	s := &Server{
		config:       config,
		faults:       newFaults(),
		stopped:      ctx.Done(),
		keepAlive:    keepAliveInterval,
		offlineGrace: offlineGrace,
		state:        state,
		addresses:    newAddresses(config.PrefixV4, config.PrefixV6),
		streams:      map[ID]map[*stream]bool{},
	}
	stored := ""
	if state.Policy != nil {
		stored = state.Policy.Data
	}
	if s.policy, err = parsePolicy(stored); err != nil {
		return nil, fmt.Errorf("cannot use the stored policy: %w", err)
	}
	s.saver = newSaver(func() (uint64, error) { return s.save(path) })
	if err := s.change(func(*State) error { return nil }); err != nil { // a disk that takes no state is better known now
		return nil, err
	}
	s.derp = derpserver.New(state.DERPKey, logger.Discard)
	if config.VerifyURL != "" {
		s.derp.SetVerifyClientURL(config.VerifyURL)
		s.derp.SetVerifyClientURLFailOpen(false)
	}
	context.AfterFunc(ctx, func() { s.derp.Close() })
	go s.watchExpiry(ctx)
	return s, nil
}

func (s *Server) save(path string) (uint64, error) {
	s.mu.Lock()
	revision := s.revision
	data, err := json.Marshal(s.state)
	s.mu.Unlock()
	if err == nil {
		err = replaceFile(path, data)
	}
	if err != nil {
		err = fmt.Errorf("cannot save the state: %w", err)
	}
	return revision, err
}

// view runs fn with the state locked. fn must not change it.
func (s *Server) view(fn func(*State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(s.state)
}

// change runs fn with the state locked and returns once what it did is on disk. An fn that fails must have done nothing.
func (s *Server) change(fn func(*State) error) error {
	s.mu.Lock()
	if err := fn(s.state); err != nil {
		s.mu.Unlock()
		return err
	}
	s.revision++
	revision := s.revision
	s.mu.Unlock()
	return s.saver.wait(revision)
}

// note is change for facts that a crash may lose, since the node tells them again: it does not wait for the disk.
func (s *Server) note(fn func(*State) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := fn(s.state); err != nil {
		return err
	}
	s.revision++
	s.saver.ask(s.revision)
	return nil
}

// close waits until everything is on disk.
func (s *Server) close() error {
	return s.change(func(*State) error { return nil })
}

// handler serves everything that clients reach: the control protocol, DERP and the REST API.
func (s *Server) handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	s.serveControl(ctx, mux)
	s.serveDERP(mux)
	s.servePublic(mux)
	mux.Handle("/api/v1/", s.authenticated(s.api()))
	return s.faults.wrap(mux)
}

// socketHandler serves the REST API to whoever may open the unix socket.
func (s *Server) socketHandler() http.Handler {
	mux := http.NewServeMux()
	s.servePublic(mux)
	mux.Handle("/api/v1/", s.api())
	return s.faults.wrap(mux)
}
