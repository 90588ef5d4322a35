package main

// The debug listener: what tests do to the server behind the back of its clients. Off unless --debug-listen names a
// loopback address or a unix socket; it asks for no key, so it answers no browser.
//
//	GET    /faults                       the faults that are on, with the number of calls that each has seen
//	POST   /faults           {fault}     switch one on (faults.go says what it holds); answers with it and its id
//	DELETE /faults           (?id=)      switch all off, or one
//	POST   /streams/drop     {"node":"3"}  end the map streams of that node, or of all with {}; they may come back
//	POST   /nodes/{id}/delete            delete a node as if somebody else had
//	POST   /addresses/restart            allocate from the lowest free address again, as after a restart

import (
	"context"
	"errors"
	"net/http"
	"strconv"
)

func (s *Server) debugHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /faults", call(func(*http.Request) (any, error) {
		return map[string]any{"faults": s.faults.list()}, nil
	}))
	mux.Handle("POST /faults", call(func(r *http.Request) (any, error) {
		fault := &Fault{}
		if err := decode(r, fault); err != nil {
			return nil, err
		}
		if err := s.faults.set(fault); err != nil {
			return nil, invalid(err.Error())
		}
		return fault, nil
	}))
	mux.Handle("DELETE /faults", call(func(r *http.Request) (any, error) {
		id, err := strconv.Atoi("0" + r.URL.Query().Get("id"))
		if err != nil {
			return nil, invalid(err.Error())
		}
		return map[string]int{"cleared": s.faults.clear(id)}, nil
	}))
	mux.Handle("POST /streams/drop", call(func(r *http.Request) (any, error) {
		var request struct{ Node ID }
		if err := decode(r, &request); err != nil {
			return nil, err
		}
		return map[string]int{"dropped": s.dropStreams(request.Node)}, nil
	}))
	mux.Handle("POST /nodes/{node_id}/delete", call(s.deleteNodeCall))
	mux.Handle("POST /addresses/restart", call(func(*http.Request) (any, error) {
		s.view(func(*State) { s.addresses.restart() })
		return struct{}{}, nil
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
			http.Error(w, "the debug listener is not for browsers", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// dropStreams ends the streams of the node, or of all with 0.
func (s *Server) dropStreams(id ID) (dropped int) {
	var end []context.CancelFunc
	s.view(func(*State) {
		for node, streams := range s.streams {
			for stream := range streams {
				if id == 0 || node == id {
					end = append(end, stream.end)
				}
			}
		}
	})
	for _, cancel := range end {
		cancel()
	}
	return len(end)
}

var errDebugAddress = errors.New("cannot open the debug listener: it asks for no key; use a loopback address, or unix:PATH")
