package main

// The map poll: a node tells what is new about itself and, with Stream, listens to what is new about its peers
// (hscontrol/poll.go, v0.29.2). A frame is a little-endian length and JSON, in zstd when the client asks for that.

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/zstdframe"
)

// stream is one open map poll. All but its channels is guarded by Server.mu.
type stream struct {
	node    ID
	version tailcfg.CapabilityVersion
	pending []change
	sent    map[tailcfg.NodeID]bool // the peers that the client knows of
	wake    chan struct{}
	end     context.CancelFunc
}

func (s *Server) handleMap(w http.ResponseWriter, r *http.Request, machine key.MachinePublic) {
	var request tailcfg.MapRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, "internal server error", http.StatusInternalServerError)
		return
	}
	if isTooOld(w, request.Version) {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	st := &stream{version: request.Version, sent: map[tailcfg.NodeID]bool{}, wake: make(chan struct{}, 1), end: cancel}
	found := false
	s.note(func(state *State) error {
		node := state.nodeByKey(request.NodeKey)
		if node == nil || node.MachineKey != machine {
			return errUnknownNode
		}
		found = true
		node.update(state, &request)
		if request.Stream {
			s.openStream(node, st)
		}
		s.broadcast(nodeChanged(node.ID))
		if request.Stream {
			s.broadcast(peerPatch(0, &tailcfg.PeerChange{NodeID: tailcfg.NodeID(node.ID), Online: new(true)}))
		}
		return nil
	})
	if !found {
		http.Error(w, "node not found", http.StatusNotFound)
		return
	}
	if !request.Stream {
		return // the client wants the 200 only
	}
	s.serveStream(ctx, w, st, request.Compress == "zstd")
	go s.closeStream(st)
}

// openStream is called with Server.mu held. Its first answer is everything.
func (s *Server) openStream(node *Node, st *stream) {
	s.connect(node)
	st.node = node.ID
	if s.streams[node.ID] == nil {
		s.streams[node.ID] = map[*stream]bool{}
	}
	s.streams[node.ID][st] = true
	st.queue(change{kind: fullKind})
}

// closeStream lets the node come back within the grace before anybody hears that it is gone.
func (s *Server) closeStream(st *stream) {
	s.mu.Lock()
	delete(s.streams[st.node], st)
	if len(s.streams[st.node]) == 0 {
		delete(s.streams, st.node)
	}
	s.mu.Unlock()
	select {
	case <-time.After(s.offlineGrace):
		s.note(func(state *State) error { s.disconnect(state, st.node); return nil })
	case <-s.stopped:
	}
}

// serveStream returns when the client is gone, the server stops, or a fault drops the stream.
func (s *Server) serveStream(ctx context.Context, w http.ResponseWriter, st *stream, compress bool) {
	keepAlive := time.NewTimer(s.keepAlive)
	defer keepAlive.Stop()
	for {
		s.mu.Lock()
		answers := s.answers(st)
		s.mu.Unlock()
		for _, answer := range answers {
			if s.sendMap(ctx, w, answer, compress) != nil {
				return
			}
			keepAlive.Reset(s.keepAlive)
		}
		select {
		case <-st.wake:
		case <-keepAlive.C:
			if s.sendMap(ctx, w, &tailcfg.MapResponse{KeepAlive: true}, compress) != nil {
				return
			}
			keepAlive.Reset(s.keepAlive)
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) sendMap(ctx context.Context, w http.ResponseWriter, answer *tailcfg.MapResponse, compress bool) error {
	if err := s.faults.waitWhileStalled(ctx); err != nil {
		return err
	}
	data, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	if compress {
		data = zstdframe.AppendEncode(nil, data, zstdframe.FastestCompression)
	}
	frame := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data)))
	if _, err := w.Write(append(frame, data...)); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}

// update takes over what the client says of itself. Every request moves LastSeen.
func (node *Node) update(state *State, request *tailcfg.MapRequest) {
	node.LastSeen = time.Now()
	if !request.DiscoKey.IsZero() {
		node.DiscoKey = request.DiscoKey
	}
	if len(request.Endpoints) > 0 {
		node.Endpoints = request.Endpoints
	}
	hostinfo := request.Hostinfo
	if hostinfo == nil {
		return
	}
	node.keepNetInfo(hostinfo)
	if hostinfo.Hostname != "" && hostinfo.Hostname != node.Hostname {
		if isNamedAfter(node.GivenName, node.Hostname) {
			node.GivenName = state.uniqueName(node.ID, hostinfo.Hostname)
		}
		node.Hostname = hostinfo.Hostname
	}
	node.Hostinfo = hostinfo
}
